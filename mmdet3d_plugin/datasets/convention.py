"""Boxes of the convention of mmdet3d before 1.0 are found before they are trained on."""
from itertools import islice
from typing import Optional, Sequence

import numpy as np

from ..errors import UserError

_CARS = 1000  # are enough
_FEWEST = 3
_MOVING = 2.0  # m/s


def check_convention(frames: Sequence[dict], label: Optional[int], source: str) -> None:
    """Check that cars are longer than wide and face along their velocity.

    Reads at most a thousand cars, from frames of the whole data set; with fewer than three cars, or
    three moving ones, there is nothing to tell.

    Args:
        frames: of the info file.
        label: ``bbox_label_3d`` of cars; None where the data set has none.
        source: the info file, for the error.

    Raises:
        UserError: the mean car is wider than long, or most of the moving ones (2 m/s) face more
            than 45 degrees away from their velocity, as in info files of mmdet3d before 1.0.
    """
    if label is None or label < 0:
        return
    step = max(1, len(frames) // 100)
    cars = (instance for first in range(step) for frame in frames[first::step]
            for instance in frame['instances'] if instance['bbox_label_3d'] == label)
    found = [[*car['bbox_3d'][3:7], *car.get('velocity', (0, 0))] for car in islice(cars, _CARS)]
    length, width, _, yaw, *velocity = np.array(found, np.float64).reshape(-1, 6).T
    problems = []
    if len(length) >= _FEWEST and length.mean() < width.mean():
        problems.append(f'cars are {length.mean():.1f} m long and {width.mean():.1f} m wide on '
                        'average')
    moving = np.hypot(*velocity) > _MOVING
    away = np.cos(yaw - np.arctan2(velocity[1], velocity[0]))[moving] < np.sqrt(0.5)
    if moving.sum() >= _FEWEST and away.mean() > 0.5:
        problems.append(f'{away.sum()} of {len(away)} moving cars do not face along their velocity')
    if problems:
        raise UserError(
            f'{source}: {" and ".join(problems)}. Boxes of mmdet3d before 1.0 look like this '
            '(width before length, yaw = -yaw - pi/2): convert the data set again with '
            "tools/create_data.py, or the old info file with mmdet3d's tools/update_data_coords.py")
