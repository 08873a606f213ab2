"""Triangle meshes whose faces know material, colour and owner, and primitives to build them."""

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from typing import Iterable, Optional, Sequence, Tuple

import numpy as np

Interval = Tuple[float, float]


class Material(IntEnum):
    """What a face is made of; textures, reflectance and gloss follow from it (see ``shading``)."""

    ROAD = 0
    PAVEMENT = 1
    KERB = 2
    GRASS = 3
    CAR_PARK = 4
    FACADE = 5
    ROOF = 6
    BARK = 7
    FOLIAGE = 8
    METAL = 9
    PAINT = 10
    GLASS = 11
    RUBBER = 12
    HEADLIGHT = 13
    TAIL_LIGHT = 14
    PLATE = 15
    CLOTH = 16
    SKIN = 17
    LAMP = 18


@dataclass(frozen=True)
class Mesh:
    """Triangles with per-face attributes.

    Attributes:
        vertices: (V, 3) float32, metres.
        faces: (F, 3) int32 vertex indices.
        material: (F,) uint8, values of :class:`Material`.
        color: (F, 3) float32 linear RGB albedo in [0, 1].
        instance: (F,) int32, 0 = scenery, k > 0 = road user with id k.
    """

    vertices: np.ndarray
    faces: np.ndarray
    material: np.ndarray
    color: np.ndarray
    instance: np.ndarray

    def placed(self, x: float, y: float, yaw: float = 0.0, z: float = 0.0) -> 'Mesh':
        """Returns a copy turned by ``yaw`` (rad, about +z) and then shifted to (x, y, z) metres."""
        c, s = np.cos(yaw), np.sin(yaw)
        px, py, pz = self.vertices.astype(np.float64).T
        moved = np.stack([c * px - s * py + x, s * px + c * py + y, pz + z], 1)
        return replace(self, vertices=moved.astype(np.float32))

    def owned_by(self, instance: int) -> 'Mesh':
        """Returns a copy in which every face belongs to road user ``instance``."""
        return replace(self, instance=np.full(len(self.faces), instance, np.int32))


def merge(meshes: Iterable[Mesh]) -> Mesh:
    """Concatenates meshes into one."""
    meshes = list(meshes)
    first = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + i for m, i in zip(meshes, first)]).astype(np.int32),
        *(
            np.concatenate([getattr(m, name) for m in meshes])
            for name in ('material', 'color', 'instance')
        ),
    )


def paint(vertices: np.ndarray, faces: np.ndarray, material: Material,
          color: Sequence[float]) -> Mesh:
    """Makes a mesh of one material and one colour, owned by the scenery."""
    n = len(faces)
    return Mesh(
        np.asarray(vertices, np.float32),
        np.asarray(faces, np.int32),
        np.full(n, int(material), np.uint8),
        np.tile(np.asarray(color, np.float32), (n, 1)),
        np.zeros(n, np.int32),
    )


_BOX_FACES = np.array(
    [
        [0, 2, 1],
        [0, 3, 2],
        [4, 5, 6],
        [4, 6, 7],
        [0, 1, 5],
        [0, 5, 4],
        [1, 2, 6],
        [1, 6, 5],
        [2, 3, 7],
        [2, 7, 6],
        [3, 0, 4],
        [3, 4, 7],
    ]
)


def frustum(x: Interval, y: Interval, z: Interval, material: Material, color: Sequence[float],
            top_x: Optional[Interval] = None, top_y: Optional[Interval] = None) -> Mesh:
    """A box whose top rectangle may differ from its bottom one.

    Args:
        x, y, z: (low, high) extents in metres of the bottom rectangle and of the height.
        material, color: see :class:`Mesh`.
        top_x, top_y: extents of the top rectangle, those of the bottom when None.
    """
    rows = [
        (px, py, pz)
        for (ex, ey, pz) in ((x, y, z[0]), (top_x or x, top_y or y, z[1]))
        for px, py in ((ex[0], ey[0]), (ex[1], ey[0]), (ex[1], ey[1]), (ex[0], ey[1]))
    ]
    return paint(rows, _BOX_FACES, material, color)


def gable(x: Interval, y: Interval, z: Interval, material: Material, color: Sequence[float],
          along_x: bool = True) -> Mesh:
    """A ridge roof over the rectangle x × y, from z[0] at the eaves to z[1] at the ridge."""
    (x0, x1), (y0, y1), (z0, z1) = x, y, z
    xm, ym = (x0 + x1) / 2, (y0 + y1) / 2
    ridge = [(x0, ym, z1), (x1, ym, z1)] if along_x else [(xm, y0, z1), (xm, y1, z1)]
    corners = [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)]
    faces = (
        [[0, 1, 5], [0, 5, 4], [2, 3, 4], [2, 4, 5], [1, 2, 5], [3, 0, 4]]
        if along_x
        else [[1, 2, 5], [1, 5, 4], [3, 0, 4], [3, 4, 5], [0, 1, 4], [2, 3, 5]]
    )
    return paint(corners + ridge, faces, material, color)


def quad(x: Interval, y: Interval, z: float, material: Material, color: Sequence[float]) -> Mesh:
    """A horizontal rectangle."""
    return paint(
        [(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)],
        [[0, 1, 2], [0, 2, 3]],
        material,
        color,
    )


@cache
def _unit(shape, detail):
    import trimesh

    made = (
        trimesh.creation.cylinder(radius=1.0, height=1.0, sections=detail)
        if shape == 'cylinder'
        else trimesh.creation.icosphere(subdivisions=detail)
    )
    return np.asarray(made.vertices, np.float64), np.asarray(made.faces, np.int32)


def column(radius: float, z: Interval, material: Material, color: Sequence[float],
           sections: int = 7, taper: float = 1.0) -> Mesh:
    """An upright cylinder around the z axis whose top radius is ``taper`` times the bottom one."""
    vertices, faces = _unit('cylinder', sections)
    scale = radius * np.where(vertices[:, 2:] > 0, taper, 1.0)
    height = z[0] + (vertices[:, 2:] + 0.5) * (z[1] - z[0])
    return paint(np.hstack([vertices[:, :2] * scale, height]), faces, material, color)


def wheel(x: float, y: Interval, radius: float, material: Material, color: Sequence[float],
          sections: int = 12) -> Mesh:
    """A disc standing on z = 0 with its axle along y, spanning the interval ``y`` sideways."""
    vertices, faces = _unit('cylinder', sections)
    turned = np.stack(
        [
            x + vertices[:, 0] * radius,
            y[0] + (vertices[:, 2] + 0.5) * (y[1] - y[0]),
            radius + vertices[:, 1] * radius,
        ],
        1,
    )
    return paint(turned, faces, material, color)


def blob(center: Sequence[float], radii: Sequence[float], material: Material,
         color: Sequence[float], rng: Optional[np.random.Generator] = None,
         detail: int = 1) -> Mesh:
    """An ellipsoid; with ``rng`` its surface is roughened like a crown of leaves."""
    vertices, faces = _unit('sphere', detail)
    if rng is not None:
        vertices = vertices * rng.uniform(0.78, 1.12, (len(vertices), 1))
    return paint(vertices * np.asarray(radii) + np.asarray(center), faces, material, color)
