"""What surfaces look like: textures, near-infrared reflectance, sun, sky and tone curve."""

from typing import Tuple

import numpy as np

from .meshes import Material as M
from .meshes import Mesh
from .world import Streets, Weather

# near-infrared reflectance, which the LiDAR sees = base·(1 − mix) + mix·luminance·1.2
_INFRARED = {
    M.ROAD: (0.16, 0.6),
    M.PAVEMENT: (0.30, 0.5),
    M.KERB: (0.35, 0.5),
    M.GRASS: (0.50, 0.2),
    M.CAR_PARK: (0.16, 0.6),
    M.FACADE: (0.35, 0.6),
    M.ROOF: (0.20, 0.5),
    M.BARK: (0.25, 0.3),
    M.FOLIAGE: (0.55, 0.15),
    M.METAL: (0.35, 0.5),
    M.PAINT: (0.30, 0.75),
    M.GLASS: (0.05, 0.0),
    M.RUBBER: (0.06, 0.0),
    M.HEADLIGHT: (0.9, 0.0),
    M.TAIL_LIGHT: (1.5, 0.0),
    M.PLATE: (2.5, 0.0),
    M.CLOTH: (0.45, 0.3),
    M.SKIN: (0.45, 0.2),
    M.LAMP: (0.4, 0.0),
}
# Painted across a street: distance from the junction's edge to the middle, and half depth; metres.
ZEBRA, STOP_LINE = (2.3, 1.3), (4.6, 0.2)
PLAIN = 5.5
"""Metres from the junction's edge without lines along the street."""
MARGIN = 0.2
"""Metres between a zebra crossing and the kerb."""

_GLOSS = {M.PAINT: 0.05, M.GLASS: 0.09, M.METAL: 0.02, M.HEADLIGHT: 0.06}
_BASE, _MIX = (np.array([_INFRARED[m][i] for m in M], np.float32) for i in (0, 1))
_SHINE = np.array([_GLOSS.get(m, 0.0) for m in M], np.float32)


def noise(*coordinates: np.ndarray) -> np.ndarray:
    """White noise in [0, 1), a hash of integer coordinates."""
    h = np.zeros(np.broadcast_shapes(*(np.shape(c) for c in coordinates)), np.uint32)
    for c, k in zip(coordinates, (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)):
        h = (h ^ np.asarray(c).astype(np.int64).astype(np.uint32)) * np.uint32(k)
        h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(13)
    return (h >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def waves(x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """Smooth noise around 1 with an amplitude of about 0.15."""
    x, y = x / scale, y / scale
    return 1 + 0.07 * (np.sin(x + 1.7 * np.sin(0.8 * y)) + np.sin(1.3 * y + 2.1 * np.sin(0.6 * x)))


def _frac(v):
    return v - np.floor(v)


def _lane_paint(x, y, streets):
    """Mask of painted road at (x, y): lane and parking lines, stop lines, zebras."""
    h = streets.half_width

    def along(s, d, crossings, sign):
        nearest = crossings[np.abs(s[:, None] - crossings).argmin(1)]
        away, outward = np.abs(s - nearest), np.sign(s - nearest)
        free = away > h + PLAIN
        lines = (
            (np.abs(d) < 0.08) & (_frac(s / 6) < 0.5) & free
            | (np.abs(np.abs(d) - streets.lane) < 0.06) & free & (_frac(s / 2) < 0.6)
            | (np.abs(away - h - STOP_LINE[0]) < STOP_LINE[1])
            & (-d * outward * sign > 0)
            & (np.abs(d) < streets.lane)
            | (np.abs(away - h - ZEBRA[0]) < ZEBRA[1])
            & (_frac(d + 0.25) < 0.5)
            & (np.abs(d) < h - MARGIN)
        )
        return lines & (np.abs(d) < h) & (away > h)

    xs, ys = streets.xs.astype(np.float32), streets.ys.astype(np.float32)
    nearest_y = ys[np.abs(y[:, None] - ys).argmin(1)]
    nearest_x = xs[np.abs(x[:, None] - xs).argmin(1)]
    return along(x, y - nearest_y, xs, streets.side) | along(y, x - nearest_x, ys, -streets.side)


def surface(mesh: Mesh, triangle: np.ndarray, position: np.ndarray, normal: np.ndarray,
            streets: Streets,
            dusk: float = 0.0) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Optical properties at points of a mesh.

    Args:
        mesh: :class:`Mesh`.
        triangle: (N,) face indices.
        position, normal: (N, 3) float32 in the town frame.
        streets: :class:`Streets`, for the paint on the road.
        dusk: 1 = lamps on.

    Returns:
        tuple: albedo (N, 3), near-infrared reflectance (N,), gloss (N,), emission (N, 3); float32.
    """
    material, color = mesh.material[triangle], mesh.color[triangle].copy()
    shine = _SHINE[material]
    glow = np.zeros_like(color)
    x, y, z = position.T
    fine = noise(*np.floor(position.T * 24).astype(np.int64))

    def pick(*kinds):
        return np.flatnonzero(np.isin(material, [int(k) for k in kinds]))

    i = pick(M.ROAD)
    color[i] *= (
        waves(x[i], y[i], 2.3)
        * (0.8 + 0.4 * fine[i])
        * (0.85 + 0.3 * noise(np.floor(x[i] / 7), np.floor(y[i] / 4)))
    )[:, None]
    line = i[_lane_paint(x[i], y[i], streets)]
    color[line] = (0.62 + 0.12 * fine[line])[:, None]

    i = pick(M.CAR_PARK)
    color[i] *= (waves(x[i], y[i], 2.9) * (0.8 + 0.4 * fine[i]))[:, None]

    i = pick(M.PAVEMENT)
    top = normal[i, 2] > 0.5
    slab = noise(np.floor(x[i] / 0.6), np.floor(y[i] / 0.6), 3)
    joint = (_frac(x[i] / 0.6) < 0.06) | (_frac(y[i] / 0.6) < 0.06)
    color[i] *= np.where(top, (0.85 + 0.25 * slab) * np.where(joint, 0.7, 1), 1.35)[:, None]

    i = pick(M.GRASS, M.FOLIAGE)
    color[i] *= ((0.55 + 0.9 * fine[i]) * waves(x[i] + z[i], y[i] - z[i], 0.9))[:, None]

    i = pick(M.FACADE)
    _facades(i, color, shine, glow, position, normal, dusk)

    i = pick(M.ROOF)
    color[i] *= (
        0.8
        + 0.4
        * (_frac(z[i] / 0.35) < 0.8)
        * noise(np.floor(z[i] / 0.35), np.floor((x[i] + y[i]) / 0.4))
    )[:, None]

    i = pick(M.BARK, M.METAL, M.CLOTH)
    color[i] *= (0.85 + 0.3 * fine[i])[:, None]

    if dusk:
        for kind, light in (
            (M.HEADLIGHT, (2.4, 2.3, 2.0)),
            (M.TAIL_LIGHT, (1.1, 0.04, 0.03)),
            (M.LAMP, (2.2, 1.7, 1.0)),
        ):
            glow[pick(kind)] = np.float32(light) * np.float32(dusk)
    luminance = color @ np.array([0.3, 0.5, 0.2], np.float32)
    infrared = _BASE[material] * (1 - _MIX[material]) + _MIX[material] * luminance * np.float32(1.2)
    return color, infrared, shine, glow


def _facades(i, color, shine, glow, position, normal, dusk):
    """Bricks, windows and doors on walls, in place."""
    x, y, z = position[i].T
    nx, ny, nz = normal[i].T
    u = np.where(np.abs(nx) > np.abs(ny), y, x)
    key = np.floor(color[i, 0] * 997).astype(np.int64)
    period = 2.3 + 1.3 * noise(key, 1)
    column, floor = np.floor(u / period), np.floor((z - 0.3) / 3.0)
    fu, fv = _frac(u / period), _frac((z - 0.3) / 3.0)
    wide = 0.18 + 0.14 * noise(key, 2)
    wall = np.abs(nz) < 0.5
    window = wall & (fu > wide) & (fu < 1 - wide) & (fv > 0.3) & (fv < 0.8)
    frame = wall & ~window & (fu > wide - 0.04) & (fu < 1.04 - wide) & (fv > 0.26) & (fv < 0.83)
    door = (
        wall & (floor < 1) & (noise(column, key, 5) < 0.25) & (fu > 0.3) & (fu < 0.7) & (fv < 0.75)
    )
    brick = noise(np.floor(u / 0.45 + 0.5 * (np.floor(z / 0.15) % 2)), np.floor(z / 0.15), 11)
    color[i] *= (0.85 + 0.25 * brick)[:, None]
    color[i[frame]] = 0.6
    glass = i[window & ~door]
    color[glass] = (0.05, 0.06, 0.075)
    shine[glass] = 0.10
    lit = glass[noise(column, floor, key)[window & ~door] < 0.35]
    glow[lit] = np.float32((1.3, 0.9, 0.45)) * np.float32(dusk)
    shade = noise(column[door], key[door])[:, None]
    color[i[door]] = np.float32((0.25, 0.08, 0.06)) * shade + np.float32((0.05, 0.12, 0.2)) * (
        1 - shade
    )


def sky(direction: np.ndarray, weather: Weather) -> np.ndarray:
    """(N, 3) float32 radiance of the sky in the directions (N, 3)."""
    up = np.clip(direction[:, 2], 0, 1)
    blend = (1 - up[:, None]) ** 3
    color = (
        weather.zenith.astype(np.float32) * (1 - blend) + weather.horizon.astype(np.float32) * blend
    )
    p = direction[:, :2] / (up[:, None] + 0.12) * 1.3 + weather.phase[:2].astype(np.float32)
    puff = np.zeros(len(up), np.float32)
    for k, (fx, fy) in enumerate(((1.0, 0.9), (2.3, 2.1), (4.7, 5.3), (9.1, 10.3))):
        turn = np.float32(weather.phase[2] + k)
        puff += np.sin(
            p[:, 0] * np.float32(fx)
            + np.sin(p[:, 1] * np.float32(fy) + turn) * np.float32(1.4)
            + turn
        ) * np.float32(0.5**k)
    cloud = np.clip(puff * 0.45 + np.float32(weather.clouds * 1.6 - 0.8), 0, 1)[:, None]
    bright = (weather.horizon * 1.05 + weather.sun * 0.12).astype(np.float32)
    color = color * (1 - cloud * 0.85) + bright * cloud * 0.85
    toward = np.clip(direction @ weather.sun_dir.astype(np.float32), 0, 1)[:, None]
    halo = toward**24 * 0.25 + (toward > 0.9994) * 6
    return (color + weather.sun.astype(np.float32) * halo * (1 - cloud * 0.8)).astype(np.float32)


def radiance(direction: np.ndarray, normal: np.ndarray, albedo: np.ndarray, shine: np.ndarray,
             glow: np.ndarray, sunlit: np.ndarray, open_sky: np.ndarray,
             weather: Weather) -> np.ndarray:
    """(N, 3) float32 radiance of surface points seen along ``direction``.

    Args:
        direction, normal: (N, 3) unit vectors, from the camera and out of the surface.
        albedo, shine, glow: as returned by :func:`surface`.
        sunlit: (N,) fraction of the sun that is not shadowed.
        open_sky: (N,) fraction of the sky that is not occluded nearby.
        weather: :class:`Weather`.
    """
    sun_dir, sun = weather.sun_dir.astype(np.float32), weather.sun.astype(np.float32)
    facing = np.clip(normal @ sun_dir, 0, 1) * sunlit
    hemisphere = (0.62 + 0.38 * normal[:, 2]) * open_sky
    light = facing[:, None] * sun + hemisphere[:, None] * weather.ambient.astype(np.float32)
    out = albedo * light + glow
    i = np.flatnonzero(shine > 0)
    if len(i):
        cos = np.clip(-(direction[i] * normal[i]).sum(1), 0, 1)
        mirrored = direction[i] + 2 * cos[:, None] * normal[i]
        fresnel = (shine[i] + (1 - shine[i]) * 0.75 * (1 - cos) ** 5)[:, None]
        street = weather.ambient.astype(np.float32) * np.float32(0.22)
        up = np.clip(mirrored[:, 2:] * 4 + 0.3, 0, 1)
        seen = sky(mirrored, weather) * up + street * (1 - up)
        spark = np.clip(mirrored @ sun_dir, 0, 1)[:, None] ** 60 * sunlit[i, None] * sun * 1.5
        out[i] = out[i] * (1 - fresnel) + fresnel * (seen + spark)
    return out


def develop(light: np.ndarray, exposure: float) -> np.ndarray:
    """Maps radiance (N, 3) to display values in [0, 1]: exposure, shoulder and gamma."""
    return (1 - np.exp(-light * np.float32(exposure))) ** np.float32(1 / 2.2)
