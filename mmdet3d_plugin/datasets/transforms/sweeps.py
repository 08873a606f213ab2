"""Scans before the key frame's."""
import logging

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARPoints
from mmengine.logging import print_log

from ...errors import UserError
from ...geometry import rigid
from ...structures import fields, read_virtual_points, virtual_path
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
            raise UserError(f'{type(self).__name__}: the frame has no points; put it after '
                            'LoadPointCloud')
        own = self._own(results)
        clouds = [torch.cat([own, own.new_zeros(len(own), 1)], 1)]
        sweeps = results.get('lidar_sweeps', [])
        for n in self._choose(len(sweeps)):
            points = self._read(sweeps[n]['lidar_points'], results[fields.POINTS].tensor.shape[1])
            if points is not None:
                clouds.append(self._joined(points, sweeps[n], results['timestamp']))
        if not sweeps and self.pad_empty:
            clouds += [self._without_close(clouds[0])] * self.count
        joined = torch.cat(clouds)
        results[fields.POINTS] = LiDARPoints(joined, points_dim=joined.shape[1])
        return results

    def _choose(self, stored: int):
        if self.random and stored > self.count:
            return torch.randperm(stored)[:self.count].tolist()
        return range(min(self.count, stored))

    def _own(self, results):
        """(P, F) points of the key frame."""
        return results[fields.POINTS].tensor

    def _read(self, info, columns):
        """(P, F) points of a sweep in its own axes; None to leave it out."""
        return read_points(info['lidar_path'], info['num_pts_feats'])[:, :columns]

    def _joined(self, points, sweep, timestamp):
        points = self._without_close(points)
        moved = rigid.apply(sweep['lidar_points']['scan2lidar'], points[:, :3].astype(np.float64))
        age = np.full((len(points), 1), timestamp - sweep['timestamp'])
        return torch.from_numpy(
            np.concatenate([moved, points[:, 3:], age], 1).astype(np.float32))

    def _without_close(self, points):
        x, y = abs(points[:, 0]), abs(points[:, 1])
        return points[(x >= self.remove_close) | (y >= self.remove_close)]


@TRANSFORMS.register_module()
class LoadVirtualPoints(LoadSweeps):
    """Join the scans before a frame, and MVP's virtual points of all of them, to its points.

    ``points`` (P, 4), x, y, z, intensity, become (P', 17):

    ===== =============== ======================= ======================
    col.  a scan's point  painted, in a mask      virtual
    ===== =============== ======================= ======================
    0-2   x, y, z         x, y, z                 x, y, z
    3     intensity       intensity               -1
    4-13  1               scores of the classes   scores of the classes
    14    1               score of the detection  score of the detection
    15    1               0                       -1
    16    age             age                     age
    ===== =============== ======================= ======================

    The files are described in :mod:`mmdet3d_plugin.structures.virtual_points`. A sweep without such
    a file is left out with its points; a key frame without it has its own points alone. The first
    one is warned of; ``missing`` counts them, in each worker of its own.

    Args:
        ring_in_sweeps (bool): Column 4 of the sweeps' own points is the fifth value of the file,
            the number of the beam, as in DistillBEV's released teacher.
        **kwargs: Of :class:`LoadSweeps`.

    Raises:
        FrameError: A file of virtual points is damaged.
    """

    def __init__(self, ring_in_sweeps: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.ring_in_sweeps, self.missing = ring_in_sweeps, 0

    def _own(self, results):
        points = results[fields.POINTS].tensor
        if points.shape[1] != 4:
            raise UserError(f'LoadVirtualPoints: the points have {points.shape[1]} values, expected'
                            ' x, y, z, intensity; set LoadPointCloud.use_dim=(0, 1, 2, 3)')
        info = results['lidar_points']
        added = self._added(info['lidar_path'])
        if added is None:
            added = np.zeros((0, 16), np.float32)
        if 'scan2lidar' in info:
            added[:, :3] = rigid.apply(info['scan2lidar'], added[:, :3].astype(np.float64))
        return torch.from_numpy(np.concatenate([_as_record(points.numpy()), added]))

    def _read(self, info, columns):
        added = self._added(info['lidar_path'])
        if added is None:
            return None
        points = _as_record(super()._read(info, 5 if self.ring_in_sweeps else columns))
        return np.concatenate([points, added])

    def _added(self, scan):
        """(N, 16) painted and virtual points of a scan; None without a file."""
        found = read_virtual_points(scan)
        if found is None:
            self.missing += 1
            if self.missing == 1:
                print_log(f'{virtual_path(scan)}: no virtual points of this scan, nor perhaps of '
                          'others; such sweeps are left out', 'current', logging.WARNING)
            return None
        painted, virtual = found['real_points'], found['virtual_points']
        return np.concatenate([
            np.pad(painted, ((0, 0), (0, 1))),
            np.concatenate([virtual[:, :3], np.full((len(virtual), 1), -1, np.float32),
                            virtual[:, 3:], np.full((len(virtual), 1), -1, np.float32)], 1)])


def _as_record(points):
    """(P, 4 or 5) points of a scan to (P, 16), filled with ones."""
    return np.pad(points, ((0, 0), (0, 16 - points.shape[1])), constant_values=1)


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
