"""The town of one sequence: streets, houses, road users, weather and the ego car's way.

Town frame: x along the main street in the driving direction, y left, z up; origin on the centre
line of the main street, beside the ego car's place at time 0. Metres, radians, seconds.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from .meshes import Material as M
from .meshes import Mesh, blob, column, frustum, gable, merge, quad
from .road_users import PARKED, TRAFFIC, RoadUser, make_pedestrian, make_vehicle

LANE, PARKING_LANE = 3.2, 2.3
HALF_STREET = LANE + PARKING_LANE
PAVEMENT = 3.4
KERB_HEIGHT, LOT_HEIGHT = 0.12, 0.13
REACH = 115.0  # metres around the ego car's way within which small things are built

FACADES = np.array(
    [
        [0.45, 0.18, 0.12],
        [0.55, 0.27, 0.18],
        [0.62, 0.55, 0.42],
        [0.70, 0.66, 0.58],
        [0.42, 0.40, 0.38],
        [0.60, 0.60, 0.62],
        [0.66, 0.48, 0.30],
        [0.38, 0.22, 0.18],
        [0.72, 0.70, 0.50],
    ],
    np.float32,
)
ROOFS = np.array(
    [[0.22, 0.10, 0.07], [0.13, 0.13, 0.14], [0.20, 0.17, 0.15], [0.10, 0.11, 0.13]], np.float32
)


@dataclass(frozen=True)
class Streets:
    """The street grid: centre lines of the streets along y (``xs``) and along x (``ys``).

    ``side`` is +1 where traffic keeps left and -1 where it keeps right.
    """

    xs: np.ndarray
    ys: np.ndarray
    side: int
    half_width: float = HALF_STREET
    lane: float = LANE


@dataclass(frozen=True)
class Weather:
    """Light of one sequence; colours are linear RGB radiances in arbitrary units.

    Attributes:
        sun_dir: (3,) unit vector to the sun.
        sun: (3,) colour of the direct light, already dimmed by clouds.
        zenith, horizon: (3,) sky colours.
        clouds: cloud cover in [0, 1].
        dusk: 1 when lamps are on, else 0.
        phase: (3,) offsets of the cloud pattern.
    """

    sun_dir: np.ndarray
    sun: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    clouds: float
    dusk: float
    phase: np.ndarray

    @property
    def exposure(self) -> float:
        """Camera exposure that keeps a grey road in the middle of the tone curve."""
        light = self.sun.mean() * max(self.sun_dir[2], 0.05) + self.ambient.mean()
        return (0.7 if self.dusk else 1.5) / light**0.9

    @property
    def ambient(self) -> np.ndarray:
        """(3,) light from the whole sky on a horizontal surface."""
        return 0.65 * self.zenith + 0.35 * self.horizon


def make_weather(rng: np.random.Generator) -> Weather:
    """Draws sun, clouds and time of day."""
    dusk = float(rng.random() < 0.2)
    elevation = np.deg2rad(rng.uniform(4, 9) if dusk else rng.uniform(14, 62))
    azimuth = rng.uniform(-np.pi, np.pi)
    clouds = float(rng.choice([rng.uniform(0, 0.35), rng.uniform(0.35, 0.7), rng.uniform(0.85, 1)]))
    cover = np.clip((clouds - 0.55) / 0.35, 0, 1)
    warmth = np.clip(np.rad2deg(elevation) / 30, 0, 1)
    sun = np.array([1.0, 0.62 + 0.34 * warmth, 0.32 + 0.56 * warmth]) * (3.2 if not dusk else 0.9)
    grey = np.array([0.80, 0.83, 0.88])
    zenith = (1 - cover) * np.array([0.22, 0.42, 0.85]) + cover * 0.75 * grey
    horizon = (1 - cover) * np.array([0.72, 0.82, 0.95]) + cover * grey
    if dusk:
        zenith, horizon = zenith * 0.22, horizon * np.array([0.55, 0.38, 0.32])
    sun_dir = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    return Weather(
        sun_dir, sun * (1 - 0.97 * cover), zenith, horizon, clouds, dusk, rng.uniform(0, 50, 3)
    )


class EgoPath:
    """The way of the ego car: along its lane, in some towns with a turn into a side street.

    Args:
        speed: m/s.
        side: see :class:`Streets`; the turn goes to the near kerb's side.
        turn_at: distance in metres after which the turn starts, or None.
        radius: of the turn, metres.
    """

    def __init__(self, speed: float, side: int, turn_at: Optional[float] = None,
                 radius: float = 7.0) -> None:
        self.speed, self.side, self.turn_at, self.radius = speed, side, turn_at, radius

    def pose(self, t: float) -> Tuple[float, float, float]:
        """(x, y, yaw) at time ``t``."""
        s = self.speed * t
        weave = 0.18 * np.sin(s / 9.0), 0.02 * np.cos(s / 9.0)
        y0, start = self.side * LANE / 2, self.turn_at
        if start is None or s <= start:
            return s, y0 + weave[0], weave[1]
        angle = min((s - start) / self.radius, np.pi / 2)
        rest = s - start - angle * self.radius
        x = start + self.radius * np.sin(angle)
        y = self.radius * (1 - np.cos(angle)) + rest
        return (
            x - self.side * weave[0] * np.sin(angle),
            y0 + self.side * y + weave[0] * np.cos(angle),
            self.side * angle + weave[1],
        )


class Town:
    """A random town and what moves in it, a function of (seed, sequence, duration) alone.

    Args:
        seed: of the world.
        sequence: number of this town in it.
        duration: seconds that the ego car drives.

    Attributes:
        streets, weather, ego: see the classes.
        scenery: Mesh of everything that is no road user.
        road_users: list of :class:`RoadUser`, parked and moving.
    """

    def __init__(self, seed: int = 0, sequence: int = 0, duration: float = 8.0) -> None:
        self.seed, self.sequence, self.duration = seed, sequence, duration
        self._rng = rng = np.random.default_rng([seed, sequence, 7])
        side, speed = int(rng.choice([-1, 1])), rng.uniform(3.5, 9.0)
        trip = speed * duration
        turn_at = float(trip * rng.uniform(0.15, 0.55)) if rng.random() < 0.45 else None
        self.ego = EgoPath(speed, side, turn_at)
        self.streets = self._plan(side, trip, turn_at)
        self.weather = make_weather(rng)
        self._way = np.array([self.ego.pose(t)[:2] for t in np.linspace(0, duration, 25)])
        self._parts, self.road_users = [], []
        self._build_ground()
        self._build_blocks()
        self._build_street_sides()
        self._add_traffic()
        self._add_pedestrians()
        self.road_users = [u for u in self.road_users if not self._meets_ego(u)]
        self.scenery = merge(self._parts)
        self._standing = merge(
            [self.scenery] + [u.placed(0) for u in self.road_users if not u.speed]
        )

    def mesh(self, t: float) -> Mesh:
        """Mesh of everything at time ``t``."""
        return merge([self._standing] + [u.placed(t) for u in self.road_users if u.speed])

    # ---------------------------------------------------------------- plan
    def _plan(self, side, trip, turn_at):
        rng, reach = self._rng, REACH + 20
        first = turn_at + 7.0 + LANE / 2 if turn_at is not None else rng.uniform(15, 60)
        xs = [first]
        while xs[-1] < trip + reach:
            xs.append(xs[-1] + rng.uniform(50, 85))
        while xs[0] > -reach:
            xs.insert(0, xs[0] - rng.uniform(50, 85))
        ys = [-rng.uniform(48, 80), 0.0, rng.uniform(48, 80)]
        while ys[0] > -(reach + 20):
            ys.insert(0, ys[0] - rng.uniform(55, 85))
        while ys[-1] < reach + 20 + (trip if turn_at is not None else 0):
            ys.append(ys[-1] + rng.uniform(55, 85))
        if side < 0:
            ys = [-y for y in ys[::-1]]
        return Streets(np.array(xs), np.array(ys), side)

    def _near(self, x, y, reach=REACH):
        return np.hypot(self._way[:, 0] - x, self._way[:, 1] - y).min() < reach

    def _add(self, *meshes):
        self._parts.extend(meshes)

    def _add_user(self, made, x, y, yaw, speed=0.0, z=0.0):
        category, kind, size, build = made
        if self._near(x, y, REACH if not speed else 3 * REACH):
            self.road_users.append(
                RoadUser(
                    len(self.road_users) + 1,
                    category,
                    kind,
                    size,
                    (float(x), float(y), float(z)),
                    float(yaw),
                    float(speed),
                    build(),
                )
            )

    def _meets_ego(self, user):
        """Whether a road user would come into the ego car (4.4 × 1.8 m) at some time."""
        length, width, _ = user.size
        for t in np.linspace(0, self.duration, 60):
            x, y, yaw = self.ego.pose(t)
            dx, dy, _ = user.position(t) - (x, y, 0)
            turn = user.yaw - yaw
            c, s = abs(np.cos(turn)), abs(np.sin(turn))
            ahead, left = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
            if (
                abs(ahead) < 2.9 + (c * length + s * width) / 2
                and abs(left) < 1.15 + (s * length + c * width) / 2
            ):
                return True
        return False

    # ---------------------------------------------------------------- scenery
    def _build_ground(self):
        xs, ys, rng = self.streets.xs, self.streets.ys, self._rng
        x, y = (xs[0] - 40, xs[-1] + 40), (ys[0] - 40, ys[-1] + 40)
        self._add(quad(x, y, 0.0, M.ROAD, (0.11, 0.11, 0.115)))
        for bx, by in (
            ((x[0], x[0] + 12), y),
            ((x[1] - 12, x[1]), y),
            (x, (y[0], y[0] + 12)),
            (x, (y[1] - 12, y[1])),
        ):
            self._add(frustum(bx, by, (0, rng.uniform(10, 22)), M.FACADE, rng.choice(FACADES)))

    def _build_blocks(self):
        xs, ys, rng, h = self.streets.xs, self.streets.ys, self._rng, HALF_STREET
        for x0, x1 in zip(xs[:-1] + h, xs[1:] - h):
            for y0, y1 in zip(ys[:-1] + h, ys[1:] - h):
                kind = rng.choice(['houses', 'car_park', 'park'], p=[0.71, 0.15, 0.14])
                self._add(
                    frustum((x0, x1), (y0, y1), (-0.3, KERB_HEIGHT), M.PAVEMENT, (0.34, 0.33, 0.31))
                )
                inner = (x0 + PAVEMENT, x1 - PAVEMENT), (y0 + PAVEMENT, y1 - PAVEMENT)
                getattr(self, f'_fill_{kind}')(*inner)

    def _fill_houses(self, x, y):
        rng = self._rng
        self._add(quad(x, y, LOT_HEIGHT, M.GRASS, (0.10, 0.17, 0.05)))
        style = rng.choice(len(FACADES), 3), rng.uniform(4.5, 12.0), rng.random() < 0.6
        depth = rng.uniform(8, 11)
        setback = rng.choice([0.3, 2.5, 4.0])
        (x0, x1), (y0, y1) = (x[0] + setback, x[1] - setback), (y[0] + setback, y[1] - setback)
        for along, a, b, fixed in (
            ('x', x0, x1, (y0, y0 + depth)),
            ('x', x0, x1, (y1 - depth, y1)),
            ('y', y0 + depth + 3, y1 - depth - 3, (x0, x0 + depth)),
            ('y', y0 + depth + 3, y1 - depth - 3, (x1 - depth, x1)),
        ):
            pos = a
            while pos + 6 < b:
                width = min(rng.uniform(7, 15), b - pos)
                if rng.random() < 0.86:
                    span = (pos, pos + width)
                    self._house(*((span, fixed) if along == 'x' else (fixed, span)), along, style)
                pos += width + (rng.uniform(1.5, 5) if rng.random() < 0.3 else 0.02)
        if setback > 1:
            self._hedges(x, y)

    def _house(self, x, y, along, style):
        rng, (palette, base, gabled) = self._rng, style
        height = base * rng.uniform(0.85, 1.25) + 0.13
        color = FACADES[rng.choice(palette)] * rng.uniform(0.8, 1.15)
        self._add(frustum(x, y, (0, height), M.FACADE, color))
        roof = ROOFS[rng.integers(len(ROOFS))]
        if gabled:
            over = 0.3
            self._add(
                gable(
                    (x[0], x[1]),
                    (y[0] - over, y[1] + over),
                    (height, height + 3.2),
                    M.ROOF,
                    roof,
                    True,
                )
                if along == 'x'
                else gable(
                    (x[0] - over, x[1] + over),
                    (y[0], y[1]),
                    (height, height + 3.2),
                    M.ROOF,
                    roof,
                    False,
                )
            )
        else:
            self._add(
                frustum(
                    (x[0] - 0.1, x[1] + 0.1),
                    (y[0] - 0.1, y[1] + 0.1),
                    (height, height + 0.35),
                    M.ROOF,
                    roof,
                )
            )

    def _hedges(self, x, y):
        rng = self._rng
        for span, edges, flat in ((x, y, True), (y, x, False)):
            for edge, inward in zip(edges, (1, -1)):
                pos = span[0] + 1
                while pos + 4 < span[1]:
                    length = min(rng.uniform(3, 9), span[1] - pos - 0.5)
                    strip = tuple(
                        sorted((edge + inward * 0.05, edge + inward * rng.uniform(0.5, 0.8)))
                    )
                    box = ((pos, pos + length), strip) if flat else (strip, (pos, pos + length))
                    center = np.mean(box, 1)
                    if rng.random() < 0.5 and self._near(*center):
                        wall = rng.random() < 0.35
                        self._add(
                            frustum(
                                *box,
                                (0.1, rng.uniform(0.8, 1.5)),
                                M.FACADE if wall else M.FOLIAGE,
                                (0.40, 0.25, 0.2) if wall else (0.07, 0.15, 0.04),
                            )
                        )
                    pos += length + rng.uniform(1.2, 4)

    def _fill_car_park(self, x, y):
        rng = self._rng
        self._add(quad(x, y, LOT_HEIGHT, M.CAR_PARK, (0.13, 0.13, 0.135)))
        fill, slant = rng.uniform(0.2, 0.6), rng.choice([0, 0, 0.35, -0.35])
        for row in np.arange(y[0] + 3.2, y[1] - 3, 8.2):
            for pos in np.arange(x[0] + 3, x[1] - 2.5, 2.8):
                if rng.random() < fill and self._near(pos, row, 70):
                    yaw = np.pi / 2 * rng.choice([-1, 1]) + slant + rng.normal(0, 0.02)
                    self._add_user(
                        make_vehicle(rng, {k: v for k, v in PARKED.items() if k != 'truck'}),
                        pos,
                        row + rng.uniform(-0.25, 0.25),
                        yaw,
                        z=LOT_HEIGHT,
                    )
        if rng.random() < 0.5:
            self._house(
                (x[0], x[1]),
                (y[1] - 0.4, y[1]) if rng.random() < 0.5 else (y[0], y[0] + 0.4),
                'x',
                ([4, 5, 0], 3.0, False),
            )

    def _fill_park(self, x, y):
        rng = self._rng
        self._add(quad(x, y, LOT_HEIGHT, M.GRASS, (0.11, 0.20, 0.05)))
        for _ in range(int((x[1] - x[0]) * (y[1] - y[0]) / 90)):
            self._tree(rng.uniform(*x), rng.uniform(*y))

    def _build_street_sides(self):
        for along, own, others in (
            ('x', self.streets.ys, self.streets.xs),
            ('y', self.streets.xs, self.streets.ys),
        ):
            for center in own:
                for a, b in zip(others[:-1], others[1:]):
                    for sign in (-1, 1):
                        self._dress(along, center, sign, a + HALF_STREET, b - HALF_STREET)

    def _dress(self, along, center, sign, a, b):
        """Parked vehicles, trees, poles and clutter on one side of a street between junctions."""
        rng = self._rng

        def at(s, d):
            return (s, center + sign * d) if along == 'x' else (center + sign * d, s)

        travel = sign * self.streets.side  # +1: the lane on this side runs along the axis
        heading = 0.0 if along == 'x' else np.pi / 2
        if along == 'y':
            travel = -travel
        fill, pos = rng.uniform(0.2, 0.65), a + 6.5
        while pos < b - 6.5:
            made = make_vehicle(rng, PARKED)
            length = made[2][0]
            where = at(pos + length / 2, LANE + PARKING_LANE / 2 + rng.uniform(0, 0.12))
            if pos + length < b - 6 and rng.random() < fill:
                if rng.random() < 0.04:
                    self._skip(*where, along)
                elif self._near(*where, 85):
                    flip = np.pi * float((travel < 0) != (rng.random() < 0.15))
                    self._add_user(made, *where, heading + flip + rng.normal(0, 0.012))
            pos += length + rng.uniform(0.7, 1.6)
        step = rng.uniform(9, 16)
        for s in np.arange(a + rng.uniform(3, 7), b - 2, step):
            x, y = at(s, HALF_STREET + 0.7)
            if rng.random() < 0.55 and self._near(x, y):
                self._tree(x, y)
        for s in np.arange(a + 1.0, b, 24.0):
            x, y = at(s, HALF_STREET + 0.45)
            if self._near(x, y):
                self._pole(x, y, center if along == 'y' else None, center if along == 'x' else None)
        if rng.random() < 0.6:
            x, y = at(rng.uniform(a + 2, b - 2), HALF_STREET + 3.1)
            color = rng.choice([(0.05, 0.2, 0.08), (0.1, 0.12, 0.3), (0.35, 0.05, 0.04)])
            self._add(frustum((x - 0.35, x + 0.35), (y - 0.3, y + 0.3), (0.1, 1.2), M.METAL, color))

    def _tree(self, x, y):
        rng = self._rng
        height, crown = rng.uniform(4.5, 8.5), rng.uniform(1.3, 2.4)
        green = np.array([0.09, 0.17, 0.04]) * rng.uniform(0.7, 1.4, 3)
        parts = [
            column(rng.uniform(0.12, 0.22), (0, height - crown), M.BARK, (0.14, 0.10, 0.07), 6, 0.7)
        ]
        for _ in range(rng.integers(1, 4)):
            offset = rng.normal(0, crown * 0.3, 3)
            parts.append(
                blob(
                    offset + (0, 0, height - crown * 0.6),
                    crown * rng.uniform(0.7, 1.05, 3),
                    M.FOLIAGE,
                    green * rng.uniform(0.85, 1.15),
                    rng,
                )
            )
        self._add(*(p.placed(x, y, 0, 0.1) for p in parts))

    def _pole(self, x, y, cx, cy):
        tall = 6.5
        self._add(column(0.08, (0, tall), M.METAL, (0.28, 0.30, 0.30), 6).placed(x, y, 0, 0.1))
        dx, dy = (
            (np.sign(cx - x) * 1.1 if cx is not None else 0),
            (np.sign(cy - y) * 1.1 if cy is not None else 0),
        )
        self._add(
            frustum(
                tuple(sorted((x - 0.12, x + dx + 0.12))),
                tuple(sorted((y - 0.12, y + dy + 0.12))),
                (tall, tall + 0.16),
                M.LAMP,
                (0.5, 0.5, 0.5),
            )
        )

    def _skip(self, x, y, along):
        """A builder's skip: as big as a car, seen by both sensors, and no vehicle."""
        half = (1.8, 0.85) if along == 'x' else (0.85, 1.8)
        color = self._rng.choice([(0.6, 0.45, 0.05), (0.25, 0.28, 0.3), (0.1, 0.25, 0.12)])
        self._add(
            frustum(
                (x - half[0] * 0.75, x + half[0] * 0.75),
                (y - half[1] * 0.9, y + half[1] * 0.9),
                (0.02, 1.35),
                M.METAL,
                color,
                (x - half[0], x + half[0]),
                (y - half[1], y + half[1]),
            )
        )

    # ---------------------------------------------------------------- movement
    def _add_traffic(self):
        rng, side, ego = self._rng, self.streets.side, self.ego
        ends = self._way[:, 0].min() - REACH, self._way[:, 0].max() + REACH
        for direction in (1, -1):
            lane = side * direction * LANE / 2
            speed = ego.speed if direction > 0 else rng.uniform(4, 10)
            drift = -direction * speed * self.duration
            x = ends[0] + min(0, drift)
            while x < ends[1] + max(0, drift):
                made = make_vehicle(rng, TRAFFIC)
                x += made[2][0] / 2
                ahead = x - made[2][0] / 2 > 6.5 or x + made[2][0] / 2 < -6.5
                if direction < 0 or ahead:
                    self._add_user(
                        made,
                        x,
                        lane + np.clip(rng.normal(0, 0.06), -0.12, 0.12),
                        0 if direction > 0 else np.pi,
                        speed,
                    )
                x += made[2][0] / 2 + rng.choice([rng.uniform(4, 9), rng.uniform(9, 30)])
        for xc in self.streets.xs:
            for arm in (-1, 1):
                self._queue(xc, arm)

    def _queue(self, xc, arm):
        """Vehicles that wait on a side street for the main street's traffic to pass."""
        rng = self._rng
        x = xc + arm * self.streets.side * LANE / 2
        y = HALF_STREET + 5.0
        for _ in range(rng.choice([0, 0, 1, 2, 3])):
            made = make_vehicle(rng, TRAFFIC)
            y += made[2][0] / 2
            if self._near(x, arm * y, 80):
                self._add_user(
                    made, x + rng.normal(0, 0.1), arm * y, -arm * np.pi / 2 + rng.normal(0, 0.03)
                )
            y += made[2][0] / 2 + rng.uniform(0.8, 2.5)

    def _add_pedestrians(self):
        rng = self._rng
        low, high = self._way[:, 0].min() - 50, self._way[:, 0].max() + 50
        for _ in range(int((high - low) / 100 * rng.uniform(5, 20))):
            y = rng.choice([-1, 1]) * (HALF_STREET + rng.uniform(1.5, 2.7))
            forward = rng.random() < 0.5
            self._add_user(
                make_pedestrian(rng),
                rng.uniform(low, high),
                y,
                0.0 if forward else np.pi,
                rng.choice([0.0, rng.uniform(0.7, 1.7)], p=[0.2, 0.8]),
                KERB_HEIGHT,
            )
        for xc in self.streets.xs:
            for _ in range(rng.integers(0, 4)):
                x = xc + rng.choice([-1, 1]) * (HALF_STREET + rng.uniform(1.5, 2.7))
                y = rng.choice([-1, 1]) * rng.uniform(HALF_STREET + 3, HALF_STREET + 45)
                self._add_user(
                    make_pedestrian(rng), x, y, np.pi / 2 * rng.choice([-1, 1]), 0.0, z=KERB_HEIGHT
                )
