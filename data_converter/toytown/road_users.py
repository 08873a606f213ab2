"""Cars, vans, buses, trucks and pedestrians of varied shape, each inside its labelled box."""

from dataclasses import dataclass
from typing import Callable, Mapping, Tuple

import numpy as np

from .meshes import Material as M
from .meshes import Mesh, blob, column, frustum, merge, wheel

# kind: (label, length, width, height) with the ranges in metres
VEHICLES = {
    'hatchback': ('Car', (3.6, 4.2), (1.66, 1.80), (1.42, 1.54)),
    'saloon': ('Car', (4.4, 4.9), (1.76, 1.90), (1.40, 1.48)),
    'estate': ('Car', (4.5, 4.9), (1.78, 1.90), (1.44, 1.54)),
    'suv': ('Car', (4.3, 4.9), (1.84, 1.98), (1.62, 1.80)),
    'van': ('Car', (4.8, 5.9), (1.90, 2.05), (1.95, 2.50)),
    'bus': ('Bus', (9.5, 12.0), (2.45, 2.55), (2.9, 3.2)),
    'double_decker': ('Bus', (9.5, 11.0), (2.45, 2.55), (4.1, 4.3)),
    'truck': ('Truck', (6.5, 9.0), (2.30, 2.50), (2.8, 3.6)),
}
TRAFFIC = {
    'hatchback': 0.27,
    'saloon': 0.19,
    'estate': 0.13,
    'suv': 0.17,
    'van': 0.11,
    'bus': 0.04,
    'double_decker': 0.03,
    'truck': 0.06,
}
PARKED = {
    'hatchback': 0.33,
    'saloon': 0.21,
    'estate': 0.15,
    'suv': 0.19,
    'van': 0.10,
    'truck': 0.02,
}

PAINTS = np.array(
    [
        [0.80, 0.80, 0.78],
        [0.72, 0.73, 0.75],
        [0.45, 0.46, 0.48],
        [0.16, 0.17, 0.18],
        [0.03, 0.03, 0.035],
        [0.05, 0.10, 0.35],
        [0.10, 0.25, 0.55],
        [0.45, 0.03, 0.03],
        [0.65, 0.05, 0.04],
        [0.04, 0.22, 0.10],
        [0.75, 0.55, 0.05],
        [0.35, 0.20, 0.10],
        [0.80, 0.30, 0.04],
        [0.25, 0.45, 0.45],
        [0.55, 0.50, 0.40],
    ],
    np.float32,
)
PAINT_WEIGHTS = np.array([5, 4, 4, 4, 4, 2, 3, 2, 3, 1, 1, 1, 1, 1, 1]) / 37
DARK, GLASS, RUBBER, HUB = (
    (0.05, 0.05, 0.05),
    (0.04, 0.05, 0.06),
    (0.025, 0.025, 0.025),
    (0.35, 0.35, 0.36),
)


@dataclass(frozen=True)
class RoadUser:
    """A labelled object that stands or moves straight at constant speed.

    Attributes:
        instance: id > 0, unique in its town.
        category: 'Car', 'Bus', 'Truck' or 'Pedestrian'.
        kind: the more precise shape, such as 'hatchback'.
        size: (length, width, height) in metres.
        start: (x, y, z) in metres of the ground point below the box centre at time 0, town frame.
        yaw: heading in rad, counter-clockwise about +z from the town's x axis.
        speed: along the heading, m/s; 0 = parked.
        mesh: the shape around its own ground point, x forward.
    """

    instance: int
    category: str
    kind: str
    size: tuple
    start: tuple
    yaw: float
    speed: float
    mesh: Mesh

    def position(self, t: float) -> np.ndarray:
        """(3,) float64 ground point in the town frame at time ``t`` seconds."""
        step = self.speed * t
        return np.array(self.start) + (step * np.cos(self.yaw), step * np.sin(self.yaw), 0.0)

    def placed(self, t: float) -> Mesh:
        """The mesh in the town frame at time ``t``, its faces carrying the instance id."""
        x, y, z = self.position(t)
        return self.mesh.placed(x, y, self.yaw, z).owned_by(self.instance)


Drawn = Tuple[str, str, Tuple[float, float, float], Callable[[], Mesh]]
"""Category, kind, (length, width, height), function that builds the mesh."""


def make_vehicle(rng: np.random.Generator, kinds: Mapping[str, float]) -> Drawn:
    """Draws a vehicle.

    Args:
        rng: numpy Generator.
        kinds: mapping from kind to probability, such as :data:`TRAFFIC`.

    Returns:
        tuple: category, kind, (length, width, height) and a function that builds the Mesh
        (without arguments; most drawn vehicles turn out to stand too far away to be built).
    """
    weights = np.array(list(kinds.values()))
    kind = str(rng.choice(list(kinds), p=weights / weights.sum()))
    category, *ranges = VEHICLES[kind]
    size = tuple(round(float(rng.uniform(*r)), 2) for r in ranges)
    color = PAINTS[rng.choice(len(PAINTS), p=PAINT_WEIGHTS)] * rng.uniform(0.85, 1.1)
    build = {'van': _van, 'bus': _bus, 'double_decker': _bus, 'truck': _truck}.get(kind, _car)
    own = np.random.default_rng(int(rng.integers(1 << 32)))
    return category, kind, size, lambda: build(own, kind, *size, color)


def _wheels(length, width, radius, axles):
    parts = []
    for x in axles:
        for side in (-1, 1):
            inner, outer = side * (width / 2 - 0.24), side * width / 2
            parts.append(wheel(x, (inner, outer - side * 0.012), radius, M.RUBBER, RUBBER))
            parts.append(
                wheel(x, (outer - side * 0.03, outer), radius * 0.62, M.METAL, HUB, 8).placed(
                    0, 0, 0, radius * 0.38
                )
            )
    return parts


def _lights(length, width, low, high):
    front, back, lamp = length / 2, -length / 2, width * 0.14
    parts = []
    for side in (-1, 1):
        y = tuple(sorted((side * (width / 2 - 0.06), side * (width / 2 - 0.06 - 2 * lamp))))
        parts += [
            frustum((front - 0.12, front), y, (low, high), M.HEADLIGHT, (0.85, 0.85, 0.8)),
            frustum(
                (back, back + 0.12), y, (low + 0.1, high + 0.1), M.TAIL_LIGHT, (0.5, 0.02, 0.02)
            ),
        ]
    plate = (-0.26, 0.26)
    parts += [
        frustum(
            (front - 0.1, front - 0.001), plate, (low - 0.22, low - 0.1), M.PLATE, (0.8, 0.8, 0.8)
        ),
        frustum(
            (back + 0.001, back + 0.1), plate, (low - 0.1, low + 0.02), M.PLATE, (0.8, 0.65, 0.1)
        ),
    ]
    return parts


def _car(rng, kind, length, width, height, color):
    front, half = length / 2, width / 2
    belt = height * (0.60 if kind != 'suv' else 0.62)
    bonnet = length * rng.uniform(0.22, 0.27)
    boot = length * {'saloon': 0.16, 'hatchback': 0.03, 'estate': 0.015, 'suv': 0.02}[kind]
    rake = {'saloon': 0.55, 'hatchback': 0.40, 'estate': 0.25, 'suv': 0.28}[kind]
    low, sill = (0.20, 0.38) if kind != 'suv' else (0.26, 0.45)
    body_y, cabin_y, roof_y = (half - 0.02), (half - 0.07), half * 0.78
    ends, screen, back = (-front + 0.03, front - 0.03), front - bonnet, -front + boot
    roof_x = (back + rake, screen - 0.62)
    trim = np.asarray(DARK) if rng.random() < 0.4 else color * 0.8
    return merge(
        [
            frustum(ends, (-body_y, body_y), (low, sill), M.PAINT, trim),
            frustum(
                ends,
                (-body_y, body_y),
                (sill, belt - 0.06),
                M.PAINT,
                color,
                (ends[0] + 0.03, ends[1] - 0.06),
                (-body_y + 0.02, body_y - 0.02),
            ),
            frustum(
                (ends[0] + 0.03, ends[1] - 0.06),
                (-body_y + 0.02, body_y - 0.02),
                (belt - 0.06, belt),
                M.PAINT,
                color,
                (ends[0] + 0.12, screen + 0.1),
                (-cabin_y, cabin_y),
            ),
            frustum(
                (back + 0.05, screen),
                (-cabin_y, cabin_y),
                (belt, height - 0.05),
                M.GLASS,
                GLASS,
                roof_x,
                (-roof_y, roof_y),
            ),
            frustum(
                (roof_x[0] - 0.04, roof_x[1] + 0.04),
                (-roof_y - 0.02, roof_y + 0.02),
                (height - 0.06, height),
                M.PAINT,
                color,
                (roof_x[0] + 0.05, roof_x[1] - 0.05),
                (-roof_y + 0.06, roof_y - 0.06),
            ),
            *_pillars(
                (roof_x[0] + 0.15, (roof_x[0] + roof_x[1]) / 2 + 0.1),
                cabin_y,
                roof_y,
                (belt, height - 0.05),
                color,
            ),
            *_wheels(
                length,
                width,
                rng.uniform(0.29, 0.33) * (1.1 if kind == 'suv' else 1.0),
                (-front + length * 0.19, front - length * 0.19),
            ),
            *_lights(length, width, belt * 0.62, belt * 0.62 + 0.15),
        ]
    )


def _pillars(xs, bottom_y, top_y, z, color):
    for x in xs:
        for side in (-1, 1):
            b, t = side * bottom_y, side * top_y
            yield frustum(
                (x, x + 0.1),
                tuple(sorted((b - side * 0.05, b + side * 0.012))),
                z,
                M.PAINT,
                color,
                None,
                tuple(sorted((t - side * 0.05, t + side * 0.012))),
            )


def _van(rng, kind, length, width, height, color):
    front, half, belt = length / 2, width / 2, height * 0.5
    bonnet, cab = length * 0.14, 0.95
    y, upper = (-half + 0.02, half - 0.02), (-half + 0.10, half - 0.10)
    ends, screen = (-front + 0.02, front - 0.03), front - bonnet
    side_glass = rng.random() < 0.4
    parts = [
        frustum(ends, y, (0.28, belt), M.PAINT, color, (ends[0], ends[1] - 0.08), y),
        frustum((ends[0], screen - cab), y, (belt, height - 0.02), M.PAINT, color, None, upper),
        frustum(
            (screen - cab, screen),
            y,
            (belt, height - 0.08),
            M.GLASS,
            GLASS,
            (screen - cab, screen - 0.55),
            upper,
        ),
        frustum((screen - cab - 0.1, screen - 0.5), upper, (height - 0.09, height), M.PAINT, color),
        *_wheels(length, width, 0.34, (-front + length * 0.2, front - length * 0.17)),
        *_lights(length, width, belt * 0.6, belt * 0.6 + 0.2),
    ]
    if side_glass:
        parts.append(
            frustum(
                (ends[0] + 0.5, screen - cab - 0.2),
                (-half + 0.015, half - 0.015),
                (belt + 0.05, belt + 0.5),
                M.GLASS,
                GLASS,
                None,
                (-half + 0.04, half - 0.04),
            )
        )
    return merge(parts)


def _bus(rng, kind, length, width, height, color):
    front, half = length / 2, width / 2
    body, glass = (-half + 0.01, half - 0.01), (-half + 0.04, half - 0.04)
    ends, inset = (-front + 0.02, front - 0.02), (-front + 0.08, front - 0.06)
    accent = PAINTS[rng.integers(len(PAINTS))]
    levels = ((1.0, 2.0), (2.75, 3.65)) if kind == 'double_decker' else ((1.15, 2.25),)
    parts, z = [], 0.3
    for low, high in levels:
        parts += [
            frustum(ends, body, (z, low), M.PAINT, color if z < 1 else accent),
            frustum(inset, glass, (low, high), M.GLASS, GLASS),
        ]
        parts += [
            frustum((x, x + 0.12), body, (low, high), M.PAINT, color)
            for x in np.arange(ends[0] + 0.1, ends[1] - 1.2, 1.55)
        ]
        z = high
    parts += [
        frustum(ends, body, (z, height), M.PAINT, accent, None, (-half + 0.15, half - 0.15)),
        *_wheels(length, width, 0.48, (-front + length * 0.25, front - length * 0.22)),
        *_lights(length, width, 0.6, 0.8),
    ]
    return merge(parts)


def _truck(rng, kind, length, width, height, color):
    front, half = length / 2, width / 2
    cab, top = rng.uniform(1.7, 2.1), min(height, 2.75)
    y, body = (-half + 0.02, half - 0.02), (-half + 0.12, half - 0.12)
    box = (
        np.array([0.75, 0.75, 0.72]) * rng.uniform(0.5, 1.1)
        if rng.random() < 0.6
        else PAINTS[rng.integers(len(PAINTS))]
    )
    back = (-front + 0.02, front - cab - 0.25)
    return merge(
        [
            frustum((-front + 0.02, front - 0.05), body, (0.5, 0.95), M.METAL, DARK),
            frustum(back, y, (0.95, height), M.PAINT, box),
            frustum((front - cab, front - 0.03), body, (0.35, 1.5), M.PAINT, color),
            frustum(
                (front - cab, front - 0.03),
                body,
                (1.5, top - 0.25),
                M.GLASS,
                GLASS,
                (front - cab, front - 0.28),
                None,
            ),
            frustum(
                (front - cab, front - cab + 0.7),
                (-half + 0.11, half - 0.11),
                (1.5, top - 0.25),
                M.PAINT,
                color,
            ),
            frustum(
                (front - cab, front - 0.25),
                body,
                (top - 0.25, top),
                M.PAINT,
                color,
                (front - cab, front - 0.6),
                None,
            ),
            *_wheels(length, width, 0.46, (-front + 1.3, -front + 2.35, front - 1.2)),
            *_lights(length, width, 0.6, 0.8),
        ]
    )


def make_pedestrian(rng: np.random.Generator) -> Drawn:
    """Draws a pedestrian; returns what :func:`make_vehicle` returns."""
    height, width = round(float(rng.uniform(1.5, 1.92)), 2), round(float(rng.uniform(0.5, 0.62)), 2)
    length, stride = round(float(rng.uniform(0.5, 0.75)), 2), rng.uniform(-1, 1)
    coat, trousers = rng.choice(PAINTS), rng.choice(PAINTS) * 0.6
    skin = np.array([0.55, 0.36, 0.26]) * rng.uniform(0.35, 1.2)
    hip, shoulder, half = height * 0.48, height * 0.83, width / 2
    step = stride * (length / 2 - 0.1)
    parts = [
        blob((0, 0, height - 0.125), (0.10, 0.09, 0.125), M.SKIN, skin),
        frustum(
            (-0.11, 0.11),
            (-half + 0.11, half - 0.11),
            (hip - 0.05, shoulder),
            M.CLOTH,
            coat,
            (-0.12, 0.12),
            (-half + 0.07, half - 0.07),
        ),
    ]
    for side in (-1, 1):
        foot, hand, y = side * step, -side * step * 0.8, side * (half - 0.18)
        parts += [
            frustum(
                (foot - 0.1, foot + 0.1),
                (y - 0.07, y + 0.07),
                (0, hip),
                M.CLOTH,
                trousers,
                (-0.09, 0.09),
                None,
            ),
            frustum(
                (hand - 0.05, hand + 0.05),
                (side * half - 0.05 - side * 0.05, side * half + 0.05 - side * 0.05),
                (hip - 0.08, shoulder - 0.02),
                M.CLOTH,
                coat,
                (-0.06, 0.06),
                None,
            ),
        ]
    if rng.random() < 0.3:
        parts.append(column(0.09, (hip, shoulder - 0.05), M.CLOTH, trousers).placed(-0.16, 0))
    return 'Pedestrian', 'pedestrian', (length, width, height), lambda: merge(parts)
