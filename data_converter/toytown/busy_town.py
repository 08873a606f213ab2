"""A town with the other classes of nuScenes besides cars, buses, trucks and pedestrians."""

import numpy as np

from .meshes import Material as M
from .meshes import blob, column, frustum, merge, wheel
from .road_users import (
    DARK,
    HUB,
    PAINTS,
    RUBBER,
    RoadUser,
    _bus,
    _truck,
    _van,
    _wheels,
    make_pedestrian,
)
from .world import LANE, PARKING_LANE, Town

ORANGE = (0.75, 0.22, 0.03)
YELLOW = (0.70, 0.48, 0.03)

# kind: ranges of length, width, height in metres
FAR = {
    'bus': ((9.5, 10.5), (2.3, 2.35), (2.9, 3.1)),
    'truck': ((6.5, 7.5), (2.25, 2.35), (2.8, 3.2)),
    'trailer': ((6.5, 8.5), (2.1, 2.25), (2.9, 3.4)),
    'excavator': ((5.2, 6.2), (2.1, 2.25), (2.7, 3.1)),
    'ambulance': ((5.2, 5.9), (1.95, 2.05), (2.3, 2.5)),
}
NEAR = {
    'barrier': ((0.45, 0.55), (1.8, 2.3), (0.95, 1.1)),
    'motorcycle': ((2.0, 2.2), (0.7, 0.8), (1.1, 1.25)),
    'bicycle': ((1.65, 1.8), (0.5, 0.6), (1.0, 1.1)),
    'cone': ((0.36, 0.42), (0.36, 0.42), (0.7, 0.8)),
    'pedestrian': None,
}
CLEAR = 4.0
"""Metres around them that no parked vehicle stands."""


class BusyTown(Town):
    """A town with two of each of ``NEAR`` and ``FAR`` along the ego car's path.

    They are in the parking lanes: small objects on the ego car's side, large ones on the other.
    Parked vehicles that would overlap are removed; nothing moves there. Otherwise it is the
    :class:`Town` of the same arguments.

    Attributes:
        car_parks: list of ((x0, x1), (y0, y1)) of blocks that are car parks.
    """

    def __init__(self, seed: int = 0, sequence: int = 0, duration: float = 8.0) -> None:
        self.car_parks = []
        super().__init__(seed, sequence, duration)
        rng = np.random.default_rng([seed, sequence, 11])
        parked = [user for user in self.road_users if not user.speed]
        moving = [user for user in self.road_users if user.speed]
        added, number = [], max(user.instance for user in self.road_users)
        for kind in [kind for kind in (*FAR, *NEAR) for _ in range(2)]:
            number += 1
            added.append(self._find_place(rng, kind, number, added))
        parked = [user for user in parked
                  if not any(touch(user, other, CLEAR) for other in added)]
        self.road_users = sorted(parked + moving + added, key=lambda user: user.instance)
        self._standing = merge([self.scenery] + [user.placed(0) for user in parked + added])

    @property
    def way(self) -> np.ndarray:
        """(N, 2) places of the ego car."""
        return self._way

    def _fill_car_park(self, x, y):
        self.car_parks.append((x, y))
        super()._fill_car_park(x, y)

    def _find_place(self, rng, kind, number, others):
        if kind == 'pedestrian':
            *_, size, build = make_pedestrian(rng)
            mesh = build()
        else:
            limits = (FAR | NEAR)[kind]
            size = tuple(round(float(rng.uniform(*between)), 2) for between in limits)
            mesh = BUILD[kind](rng, *size)
        side, trip = self.ego.side, self.ego.speed * self.duration
        left = side * (LANE / 2 + PARKING_LANE / 2 if kind in NEAR else
                       -1.5 * LANE - PARKING_LANE / 2)
        for attempt in range(1000):
            reach = 6 + 0.05 * attempt
            x, y, yaw = self.ego.pose(rng.uniform(-reach, trip + reach) / self.ego.speed)
            straight = np.round(yaw / (np.pi / 2)) * np.pi / 2
            if abs(yaw - straight) > 0.1:  # in the bend
                continue
            place = x - left * np.sin(straight), y + left * np.cos(straight), 0.0
            turn = straight + (0 if kind in NEAR else np.pi)
            turn += (np.pi / 2 if kind == 'barrier' else 0) + rng.normal(0, 0.02)
            user = RoadUser(number, kind.capitalize(), kind, size, place, turn, 0.0, mesh)
            if not any(touch(user, other) for other in others) and not self._meets_ego(user):
                return user
        raise RuntimeError(f'no place for a {kind} in town {self.seed}, {self.sequence}')


def touch(one: RoadUser, other: RoadUser, gap: float = 0.25) -> bool:
    """Whether the boxes of two standing road users come nearer than ``gap`` metres."""
    offset = (other.position(0) - one.position(0))[:2]
    for first, second in ((one, other), (other, one)):
        turn = second.yaw - first.yaw
        c, s = abs(np.cos(turn)), abs(np.sin(turn))
        reach = np.array([first.size[0] + c * second.size[0] + s * second.size[1],
                          first.size[1] + s * second.size[0] + c * second.size[1]]) / 2 + gap
        c, s = np.cos(first.yaw), np.sin(first.yaw)
        if (np.abs([c * offset[0] + s * offset[1], c * offset[1] - s * offset[0]]) > reach).any():
            return False
    return True


def _trailer(rng, length, width, height):
    front, y = length / 2, (-width / 2 + 0.02, width / 2 - 0.02)
    color = np.array([0.7, 0.7, 0.68]) * rng.uniform(0.4, 1.1)
    return merge([
        frustum((-front + 0.02, front - 1.1), y, (0.9, height), M.PAINT, color),
        frustum((front - 1.2, front - 0.02), (-0.15, 0.15), (0.55, 0.8), M.METAL, DARK),
        frustum((-front + 0.1, front - 1.2), (-0.6, 0.6), (0.6, 0.9), M.METAL, DARK),
        *_wheels(length, width, 0.45, (-front + 1.2, -front + 2.2))])


def _excavator(rng, length, width, height):
    front, half = length / 2, width / 2
    tracks = [frustum((-front + 0.05, front - 2.1), (a, b), (0, 0.75), M.RUBBER, RUBBER)
              for a, b in ((-half, -half + 0.45), (half - 0.45, half))]
    return merge([
        *tracks,
        frustum((-front, front - 2.3), (-half + 0.1, half - 0.1), (0.75, 1.6), M.PAINT, YELLOW),
        frustum((-front + 1.2, front - 2.2), (0.05, half - 0.1), (1.6, height), M.GLASS, DARK),
        frustum((front - 2.5, front - 1.6), (-0.5, -0.15), (1.2, height), M.PAINT, YELLOW,
                (front - 1.4, front - 0.9)),
        frustum((front - 0.7, front - 0.1), (-0.6, 0.0), (0.05, 0.8), M.METAL, DARK),
        frustum((front - 0.55, front - 0.25), (-0.45, -0.2), (0.8, height - 0.02), M.PAINT, YELLOW,
                (front - 1.4, front - 1.1))])


def _two_wheels(length, radius, thick):
    parts = []
    for x in (-length / 2 + radius, length / 2 - radius):
        parts += [wheel(x, (-thick, thick), radius, M.RUBBER, RUBBER),
                  wheel(x, (-thick - 0.01, thick + 0.01), radius * 0.5, M.METAL, HUB, 8).placed(
                      0, 0, 0, radius * 0.5)]
    return parts


def _bicycle(rng, length, width, height):
    color = rng.uniform(0.05, 0.7, 3)
    end, half = length / 2 - 0.34, width / 2
    return merge([
        *_two_wheels(length, 0.34, 0.02),
        frustum((-end, end), (-0.03, 0.03), (0.34, 0.42), M.PAINT, color),
        frustum((-end * 0.4, end), (-0.03, 0.03), (0.42, 0.8), M.PAINT, color,
                (-end * 0.3, end * 0.8)),
        frustum((-end * 0.6, -end * 0.1), (-0.08, 0.08), (0.8, height - 0.1), M.CLOTH, DARK),
        frustum((end * 0.7, end * 0.85), (-half, half), (height - 0.1, height), M.METAL, DARK)])


def _motorcycle(rng, length, width, height):
    color = rng.uniform(0.05, 0.7, 3)
    end, half = length / 2 - 0.32, width / 2
    return merge([
        *_two_wheels(length, 0.32, 0.07),
        frustum((-end, end), (-0.2, 0.2), (0.3, 0.8), M.PAINT, color),
        blob((0.12, 0, 0.85), (0.3, 0.2, 0.17), M.PAINT, color),
        frustum((-end, -0.1), (-0.16, 0.16), (0.75, 0.92), M.CLOTH, DARK),
        frustum((end - 0.2, end - 0.1), (-half, half), (height - 0.12, height), M.METAL, DARK),
        frustum((end - 0.2, end), (-0.12, 0.12), (0.7, height - 0.1), M.HEADLIGHT, (.8, .8, .75))])


def _cone(rng, length, width, height):
    half = length / 2
    return merge([
        frustum((-half, half), (-half, half), (0, 0.06), M.RUBBER, RUBBER),
        column(half * 0.75, (0.06, height), M.PAINT, ORANGE, 9, 0.2)])


def _barrier(rng, length, width, height):
    x, y = (-length / 2, length / 2), (-width / 2, width / 2)
    inner = (-length * 0.2, length * 0.2)
    return merge([
        frustum(x, y, (0, 0.3), M.PAINT, ORANGE, inner, y),
        frustum(inner, y, (0.3, height), M.PAINT, (0.75, 0.73, 0.7))])


def _ambulance(rng, length, width, height):
    return _van(rng, 'van', length, width, height, np.array([0.75, 0.75, 0.72]))


def _painted(build, kind):
    return lambda rng, *size: build(rng, kind, *size, rng.choice(PAINTS))


BUILD = dict(bus=_painted(_bus, 'bus'), truck=_painted(_truck, 'truck'), trailer=_trailer,
             excavator=_excavator, ambulance=_ambulance, barrier=_barrier,
             motorcycle=_motorcycle, bicycle=_bicycle, cone=_cone)
