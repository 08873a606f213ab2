"""Scans before the key frame's."""
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARPoints

from ...errors import UserError
from ...geometry import rigid
from ...structures import fields
from .loading import read_points


@TRANSFORMS.register_module()
class LoadSweeps(BaseTransform):
    """Join the scans before a frame to its points, in its LiDAR frame; with a column of their age.

    ``points`` (P, F) become (P', F + 1): the last column is the time since a point was measured,
    seconds, 0 for the key frame's. Goes after :class:`LoadPointCloud`.

    Args:
        count (int): Sweeps at most. Those stored are the nearest first, so without ``random`` the
            nearest are taken.
        random (bool): Draw them from all that are stored, as BEVFusion does, for training.
        remove_close (float): Drop a sweep's points within so many metres of its LiDAR along both
            axes: they are on the car itself.
        pad_empty (bool): A frame without sweeps repeats its own points ``count`` times, as in
            BEVFusion's release.
    """

    def __init__(self, count: int = 9, random: bool = False, remove_close: float = 1.0,
                 pad_empty: bool = False):
        self.count, self.random = count, random
        self.remove_close, self.pad_empty = remove_close, pad_empty

    def transform(self, results: dict) -> dict:
        """Load and join."""
        if fields.POINTS not in results:
            raise UserError('LoadSweeps: the frame has no points; put it after LoadPointCloud')
        own = results[fields.POINTS].tensor
        clouds = [torch.cat([own, own.new_zeros(len(own), 1)], 1)]
        sweeps = results.get('lidar_sweeps', [])
        for n in self._choose(len(sweeps)):
            clouds.append(self._load(sweeps[n], results['timestamp'], own.shape[1]))
        if not sweeps and self.pad_empty:
            clouds += [self._without_close(clouds[0])] * self.count
        joined = torch.cat(clouds)
        results[fields.POINTS] = LiDARPoints(joined, points_dim=joined.shape[1])
        return results

    def _choose(self, stored: int):
        if self.random and stored > self.count:
            return torch.randperm(stored)[:self.count].tolist()
        return range(min(self.count, stored))

    def _load(self, sweep, timestamp, columns):
        info = sweep['lidar_points']
        points = read_points(info['lidar_path'], info['num_pts_feats'])[:, :columns]
        points = self._without_close(points)
        moved = rigid.apply(info['scan2lidar'], points[:, :3].astype(np.float64))
        age = np.full((len(points), 1), timestamp - sweep['timestamp'])
        return torch.from_numpy(
            np.concatenate([moved, points[:, 3:], age], 1).astype(np.float32))

    def _without_close(self, points):
        x, y = abs(points[:, 0]), abs(points[:, 1])
        return points[(x >= self.remove_close) | (y >= self.remove_close)]


@TRANSFORMS.register_module()
class KeepPoints(BaseTransform):
    """Keep the points as they are now under a second name, for a teacher that reads others.

    ``LoadPointCloud, LoadSweeps, KeepPoints(name='sweeps'), LoadPointCloud`` gives the student
    ``points`` of one scan and the teacher ``points_sweeps``; see ``teacher.inputs``.

    Args:
        name (str): They are kept as ``points_<name>``.
    """

    def __init__(self, name: str):
        self.name = name

    def transform(self, results: dict) -> dict:
        """Keep."""
        results[f'{fields.POINTS}_{self.name}'] = results[fields.POINTS].clone()
        return results
