"""Ray-cast cameras and LiDARs in a town.

Sensor frames have x forward, y left, z up. Rays are float32 in the town
frame; ray casting is Embree's.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Optional, Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from mmdet3d_plugin.geometry import rigid

from .meshes import Mesh
from .shading import develop, noise, radiance, sky, surface
from .world import Town, Weather

CHUNK = 1 << 17  # rays shaded at a time; bounds the memory, never changes the result


def pose_matrix(x: float, y: float, z: float, yaw: float = 0.0) -> np.ndarray:
    """4×4 float64 matrix from a frame at (x, y, z), turned by ``yaw`` about +z, to its parent."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


def mounted(axes: Sequence[Sequence[float]], at: Sequence[float], yaw_deg: float = 0.0,
            pitch_deg: float = 0.0) -> np.ndarray:
    """4×4 matrix from a sensor's frame to the car's (x ahead, y left, z up).

    Args:
        axes: the sensor's x, y and z axis in the car's frame, before it is turned.
        at: its place, metres.
        yaw_deg, pitch_deg: the sensor is pitched down, and then turned about z.
    """
    rotation = Rotation.from_euler('ZY', [yaw_deg, pitch_deg], degrees=True).as_matrix()
    return rigid.rigid(rotation @ np.transpose(axes), at)


class RayScene:
    """A mesh that rays can be cast at."""

    def __init__(self, mesh: Mesh) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.mesh = mesh
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, vertices=mesh.vertices, indices=mesh.faces)

    def cast(self, origin: np.ndarray,
             direction: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First hits of the rays from one point.

        Args:
            origin: (3,).
            direction: (N, 3) unit vectors.

        Returns:
            tuple: distance (N,) float32 in metres, inf without a hit; face index (N,) int,
            -1 without a hit; normal (N, 3) float32 unit vectors towards the ray's origin.
        """
        direction = np.ascontiguousarray(direction, np.float32)
        start = np.tile(np.asarray(origin, np.float32), (len(direction), 1))
        hits = self._scene.run(start, direction, query='INTERSECT', output=1)
        normal = hits['Ng'] / np.maximum(np.linalg.norm(hits['Ng'], axis=1, keepdims=True), 1e-12)
        normal *= np.where((normal * direction).sum(1, keepdims=True) > 0, -1, 1)
        return np.where(hits['primID'] < 0, np.inf, hits['tfar']), hits['primID'], normal

    def blocked(self, start: np.ndarray, direction: np.ndarray,
                reach: Optional[float] = None) -> np.ndarray:
        """(N,) bool: whether something lies on the rays, within ``reach`` metres if given."""
        start, direction = (np.ascontiguousarray(a, np.float32) for a in (start, direction))
        limit = None if reach is None else np.full(len(start), reach, np.float32)
        if not len(start):
            return np.zeros(0, bool)
        return self._scene.run(start, direction, dists=limit, query='OCCLUDED') >= 0

    def instances(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(N,) int32 road-user ids that rays from one point hit: 0 = scenery, -1 = nothing."""
        _, face, _ = self.cast(origin, direction)
        return np.where(face < 0, -1, self.mesh.instance[face])


def sunlight(scene: RayScene, position: np.ndarray, normal: np.ndarray,
             weather: Weather) -> Tuple[np.ndarray, np.ndarray]:
    """Direct and sky light that reach surface points.

    Args:
        scene: :class:`RayScene`.
        position, normal: (N, 3) float32.
        weather: the town's weather.

    Returns:
        tuple: (N,) float32 fractions of the sun and of the sky in [0, 1].
    """
    start = position + normal * np.float32(0.01)
    sunlit = np.zeros(len(position), np.float32)
    up = np.flatnonzero(normal @ weather.sun_dir.astype(np.float32) > 0)
    to_sun = np.tile(weather.sun_dir.astype(np.float32), (len(up), 1))
    sunlit[up] = ~scene.blocked(start[up], to_sun)
    cells = np.floor(position.T * 97).astype(np.int64)
    turn, rise = 2 * np.pi * noise(*cells, 1), np.sqrt(noise(*cells, 2))
    around = np.stack([np.cos(turn) * rise, np.sin(turn) * rise, np.sqrt(1 - rise**2)], 1)
    around = around * 0.9 + normal
    around /= np.linalg.norm(around, axis=1, keepdims=True) + 1e-6
    return sunlit, np.float32(1) - np.float32(0.62) * scene.blocked(start, around, 3.0)


# ------------------------------------------------------------------ camera
@dataclass(frozen=True)
class DualFisheye:
    """Two back-to-back equidistant lenses: left square rear lens, right square front lens.

    Attributes:
        height: side of one square in pixels; the image is (height, 2·height).
        aperture_deg: opening angle that the image circle (inscribed in the square) stands for.
    """

    height: int
    aperture_deg: float = 203.0

    def directions(self, grid: int = 1) -> Tuple[np.ndarray, np.ndarray]:
        """Rays of the upright image, both squares in the orientation in which up is up.

        Args:
            grid: ``grid`` × ``grid`` rays per pixel.

        Returns:
            tuple: (height, 2·height, grid², 3) float32 unit vectors in the camera frame, and the
            (height, 2·height) bool mask of the pixels whose centre lies in an image circle.
        """
        return _fisheye_directions(self.height, self.aperture_deg, grid)


@lru_cache(maxsize=4)
def _fisheye_directions(height, aperture_deg, grid):
    sub = (np.arange(grid) + 0.5) / grid
    offsets = np.stack(np.meshgrid(sub, sub), -1).reshape(-1, 2)
    pixel = np.arange(height)
    a = ((pixel[None, :, None] + offsets[:, 0]) * 2 / height - 1) * np.ones((height, 1, 1))
    b = ((pixel[:, None, None] + offsets[:, 1]) * 2 / height - 1) * np.ones((1, height, 1))
    r = np.hypot(a, b)
    angle = r * np.deg2rad(aperture_deg) / 2
    swing = np.sinc(angle / np.pi) * np.deg2rad(aperture_deg) / 2  # sin(angle) / r
    front = np.stack([np.cos(angle), -swing * a, -swing * b], -1)
    rear = front * (-1, -1, 1)
    c = (pixel + 0.5) * 2 / height - 1
    inside = np.hypot(c[None], c[:, None]) <= 1
    return np.concatenate([rear, front], 1).astype(np.float32), np.concatenate([inside, inside], 1)


def panorama_directions(height: int, width: int) -> np.ndarray:
    """(height, width, 3) float32 rays through the pixel centres of a full equirectangular panorama.

    The centre column is forward, azimuth grows to the right, row 0 is at the zenith.
    """
    right = ((np.arange(width) + 0.5) / width * 2 - 1) * np.pi
    up = np.pi / 2 - (np.arange(height) + 0.5) / height * np.pi
    right, up = np.meshgrid(right, up)
    return np.stack(
        [np.cos(up) * np.cos(right), -np.cos(up) * np.sin(right), np.sin(up)], -1
    ).astype(np.float32)


def _to_town(pose, direction):
    return np.ascontiguousarray(direction.reshape(-1, 3) @ pose[:3, :3].T.astype(np.float32))


def take_image(town: Town, scene: RayScene, pose: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Colours that a camera sees.

    Args:
        town: :class:`Town`.
        scene: :class:`RayScene` of the town at that time.
        pose: (4, 4) camera to town.
        rays: (..., S, 3) unit vectors in the camera frame, S rays per pixel.

    Returns:
        np.ndarray: (..., 3) float32 RGB in [0, 1].
    """
    shape = rays.shape[:-2]
    per_pixel = rays.shape[-2]
    rays = rays.reshape(-1, 3)
    size = max(1, CHUNK // per_pixel) * per_pixel
    parts = [
        _shade(town, scene, pose[:3, 3], _to_town(pose, rays[i : i + size]))
        .reshape(-1, per_pixel, 3)
        .mean(1)
        for i in range(0, len(rays), size)
    ]
    return np.concatenate(parts).reshape(*shape, 3)


def digital(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours in [0, 1] as a noisy image of 8 bits."""
    return np.clip(light * 255 + rng.normal(0, 1.5, light.shape) + 0.5, 0, 255).astype(np.uint8)


def _shade(town, scene, origin, direction):
    weather = town.weather
    distance, face, normal = scene.cast(origin, direction)
    out = np.empty((len(direction), 3), np.float32)
    hit = face >= 0
    out[~hit] = sky(direction[~hit], weather)
    direction, face, normal = direction[hit], face[hit], normal[hit]
    position = origin.astype(np.float32) + direction * distance[hit, None].astype(np.float32)
    color, _, shine, glow = surface(scene.mesh, face, position, normal, town.streets, weather.dusk)
    sunlit, open_sky = sunlight(scene, position, normal, weather)
    out[hit] = radiance(direction, normal, color, shine, glow, sunlit, open_sky, weather)
    return develop(out, weather.exposure)


# ------------------------------------------------------------------ LiDAR
@dataclass(frozen=True)
class SpinningLidar:
    """A spinning multi-beam LiDAR with Ouster's staggered columns.

    Attributes:
        beams, columns: size of one scan.
        fov_deg: vertical field of view, symmetric; the beams are the centres of equal rows.
        max_range: metres; weak echoes are lost before that.
        noise: standard deviation of the range, metres.
        dropout: fraction of echoes lost at random.
    """

    beams: int = 128
    columns: int = 2048
    fov_deg: float = 45.0
    max_range: float = 120.0
    noise: float = 0.015
    dropout: float = 0.008

    @property
    def altitude_deg(self) -> np.ndarray:
        """(beams,) float64 elevation of each beam, top first."""
        return self.fov_deg / 2 * (1 - (2 * np.arange(self.beams) + 1) / self.beams)

    @property
    def shift(self) -> np.ndarray:
        """(beams,) int: column in the image = firing column + shift (modulo columns)."""
        return np.resize(np.array([48, 32, 16, 0]) * self.columns // 2048, self.beams)

    def directions(self) -> np.ndarray:
        """(beams, columns, 3) float32 rays in firing order: row = beam, column = firing column.

        A firing column k of row r looks at image column (k + shift[r]) mod columns; its azimuth,
        positive to the right, is ((column + 1/2) / columns · 2 − 1)·π.
        """
        column = (np.arange(self.columns) + self.shift[:, None]) % self.columns
        right = ((column + 0.5) / self.columns * 2 - 1) * np.pi
        up = np.deg2rad(self.altitude_deg)[:, None] * np.ones_like(right)
        return np.stack(
            [np.cos(up) * np.cos(right), -np.cos(up) * np.sin(right), np.sin(up)], -1
        ).astype(np.float32)


@dataclass(frozen=True)
class Scan:
    """One LiDAR revolution in firing order; every array is (beams, columns), zero without an echo.

    Attributes:
        direction: (beams, columns, 3) float32 unit vectors in the sensor frame.
        range_mm: int64.
        intensity, reflectivity, ambient: float32, integer values as the sensor gives them.
        instance: int32 road-user id of the surface, 0 = scenery, -1 = no echo.
    """

    direction: np.ndarray
    range_mm: np.ndarray
    intensity: np.ndarray
    reflectivity: np.ndarray
    ambient: np.ndarray
    instance: np.ndarray

    @property
    def xyz(self) -> np.ndarray:
        """(beams, columns, 3) float32 points in the sensor frame, metres."""
        return (self.direction * (self.range_mm[..., None] / 1000)).astype(np.float32)


def take_scan(town: Town, scene: RayScene, pose: np.ndarray, lidar: SpinningLidar,
              rng: np.random.Generator) -> Scan:
    """Scans the town.

    Args:
        town, scene: see :func:`take_image`.
        pose: (4, 4) LiDAR to town.
        lidar: :class:`SpinningLidar`.
        rng: numpy Generator for the noise.

    Returns:
        Scan: the revolution, as seen from one place (no motion distortion).
    """
    rays = lidar.directions()
    parts = [
        _echo(town, scene, pose[:3, 3], d)
        for d in np.array_split(_to_town(pose, rays), max(1, rays[..., 0].size // CHUNK))
    ]
    distance, cos, infrared, light, instance = (np.concatenate(p) for p in zip(*parts))
    n = len(distance)
    range_mm = np.round((distance + rng.normal(0, lidar.noise, n)) * 1000)
    power = infrared * (0.25 + 0.75 * cos)
    signal = 5500 * power / (1 + (distance / 9) ** 2)
    echo = (
        (instance >= 0)
        & (range_mm > 300)
        & (distance < lidar.max_range)
        & (signal * rng.uniform(0.7, 1.3, n) > 3.0)
        & (rng.random(n) > lidar.dropout)
    )
    shot = rng.normal(0, 1, (2, n))
    signal = np.clip(np.round(signal + shot[0] * np.sqrt(signal)), 1, 65535)
    rows = np.repeat(
        3 * np.random.default_rng(lidar.beams).uniform(0, 1, lidar.beams), lidar.columns
    )
    ambient = 900 * light
    ambient = np.clip(np.round(ambient + shot[1] * np.sqrt(ambient + 1) + 8 + rows), 1, 65535)
    reflectivity = np.clip(np.round(95 * power), 1, 255)
    shape = lidar.beams, lidar.columns

    def kept(values, dtype=np.float32, empty=0):
        return np.where(echo, values, empty).astype(dtype).reshape(shape)

    return Scan(
        rays,
        kept(range_mm, np.int64),
        kept(signal),
        kept(reflectivity),
        kept(ambient),
        kept(instance, np.int32, -1),
    )


def _echo(town, scene, origin, direction):
    distance, face, normal = scene.cast(origin, direction)
    n, hit = len(direction), np.flatnonzero(face >= 0)
    cos, infrared, light = np.zeros((3, n), np.float32)
    instance = np.full(n, -1, np.int32)
    ray, side, face = direction[hit], normal[hit], face[hit]
    position = origin.astype(np.float32) + ray * distance[hit, None].astype(np.float32)
    weather = town.weather
    _, reflectance, _, _ = surface(scene.mesh, face, position, side, town.streets)
    sunlit, open_sky = sunlight(scene, position, side, weather)
    facing = np.clip(side @ weather.sun_dir.astype(np.float32), 0, 1) * sunlit
    cos[hit] = -(ray * side).sum(1)
    infrared[hit] = reflectance
    light[hit] = reflectance * (
        facing * np.float32(weather.sun.mean())
        + open_sky * np.float32(0.4 * weather.ambient.mean())
    )
    instance[hit] = scene.mesh.instance[face]
    return (
        np.where(np.isfinite(distance), distance, 0).astype(np.float32),
        cos,
        infrared,
        light,
        instance,
    )
