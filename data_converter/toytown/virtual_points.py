"""Virtual points of a scan, as MVP makes them of the instance masks of images.

The masks are those of the six cameras at the time of the scan, exact, in a coarse resolution. In a
mask up to 50 pixels are drawn, and each is as far away as the point of the scan on the same object
that is the nearest in the image. Objects without such a point have none.
"""
import io
from typing import Callable, Dict, Mapping, Tuple

import numpy as np

from mmdet3d_plugin.structures.virtual_points import CLASSES, COLUMNS

PER_OBJECT = 50
ROWS = 112
"""Height of the masks, pixels."""


def mask_size(size: Tuple[int, int]) -> Tuple[int, int]:
    """(H, W) of the masks of images of (H, W) pixels."""
    rows = min(ROWS, size[0])
    return rows, max(1, round(size[1] * rows / size[0]))


def virtual_points(points: np.ndarray, owners: np.ndarray, classes: Mapping[int, str],
                   cameras: Mapping[str, Tuple[np.ndarray, np.ndarray]],
                   mask: Callable[[str], np.ndarray], rng: np.random.Generator
                   ) -> Dict[str, np.ndarray]:
    """The two arrays of a file; see :mod:`mmdet3d_plugin.structures.virtual_points`.

    Args:
        points: (P, >=4) x, y, z, intensity of the scan.
        owners: (P,) int road user of each.
        classes: Road user -> name of its class, of those that have one.
        cameras: Name -> (4, 4) LiDAR to camera, (3, 3) matrix for the mask's pixels.
        mask: Name -> (H, W) int road user of each pixel.
        rng: numpy Generator.
    """
    found = {name: [np.zeros((0, count), np.float32)] for name, count in COLUMNS.items()}
    painted = np.zeros(len(points), bool)
    for name, (lidar2cam, matrix) in cameras.items():
        users = mask(name)
        xyz = points[:, :3].astype(np.float64) @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]
        front = xyz[:, 2] > 0.1
        pixel = xyz @ matrix.T
        pixel = pixel[:, :2] / np.where(front, pixel[:, 2], 1)[:, None]
        inside = front & (np.abs(pixel * 2 - np.array(users.shape[::-1]) + 1)
                          <= users.shape[::-1]).all(1)
        for user in np.intersect1d(users, owners[inside]):
            if user not in classes:
                continue
            own, = np.nonzero(inside & (owners == user))
            scores = np.zeros(len(CLASSES) + 1)
            scores[CLASSES.index(classes[user])], scores[-1] = 1, rng.uniform(0.5, 1)
            new = own[~painted[own]]
            painted[own] = True
            found['real_points'].append(_with(points[new, :4], scores))
            places = np.argwhere(users == user)[:, ::-1]
            if len(places) > PER_OBJECT:
                places = rng.choice(places, PER_OBJECT, replace=False)
            nearest = ((places[:, None] - pixel[own]) ** 2).sum(-1).argmin(1)
            rays = np.pad(places, ((0, 0), (0, 1)), constant_values=1) @ np.linalg.inv(matrix).T
            seen = rays * xyz[own[nearest], 2:] - lidar2cam[:3, 3]
            found['virtual_points'].append(_with(seen @ lidar2cam[:3, :3], scores))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _with(points, scores) -> np.ndarray:
    return np.concatenate([points, np.tile(scores, (len(points), 1))], 1).astype(np.float32)
