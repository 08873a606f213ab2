"""Objects of other frames pasted into a frame."""
from pathlib import Path
from typing import List, Mapping, Optional, Tuple

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints

from ...errors import UserError, did_you_mean
from ...geometry import rigid
from ...structures import fields, gravity_boxes
from ..object_database import ObjectDatabase, cut_objects


@TRANSFORMS.register_module()
class CutObjects(BaseTransform):
    """Give the objects of a frame instead of the frame; see :func:`.create_database`."""

    def transform(self, results: dict):
        """Cut."""
        return cut_objects(results)


@TRANSFORMS.register_module()
class PasteObjects(BaseTransform):
    """Add objects of other frames, points and boxes, until a frame has so many of each class.

    Ground-truth sampling of SECOND and CenterPoint, for models that read LiDAR alone. Objects keep
    the place that they had in their own frame; one that would overlap another object, seen from
    above, is left out. Points of the frame in pasted boxes are removed. Goes after the loaders of
    points and before the augmentation.

    Args:
        database (str): Of :func:`.create_database`, relative to ``data_root``, without extension.
        counts (dict): Class -> objects of it that a frame is filled up to.
        min_points (int): Points of an object that is pasted at least.
        epochs (int, optional): Nothing is pasted after so many epochs; default: always. Epochs of
            iteration-based training are visits of all frames.

    Raises:
        UserError: The database is missing, damaged, or of other points; it or the data do not have
            a class; or the frame has images or is augmented.
    """

    def __init__(self, database: str, counts: Mapping[str, int], min_points: int = 5,
                 epochs: Optional[int] = None):
        self.database, self.counts = database, dict(counts)
        self.min_points, self.epochs = min_points, epochs
        self._opened: Optional[Tuple[ObjectDatabase, Mapping[str, np.ndarray]]] = None

    def prepare(self, results: dict) -> None:
        """Open the database, which workers share."""
        if self.epochs != 0:
            self._open(results)

    def transform(self, results: dict) -> dict:
        """Paste."""
        if self.epochs is not None and results.get(fields.EPOCH, 0) >= self.epochs:
            return results
        if fields.IMG in results or fields.BEV_AUG in results:
            raise UserError('PasteObjects: expected points that are not augmented, and no images; '
                            'put it after the loaders of points, in pipelines of LiDAR models')
        database, pools = self._open(results)
        points, ann = results[fields.POINTS].tensor.numpy(), results['ann_info']
        if points.shape[1] != database.points.shape[1]:
            raise UserError(f'{self.database}: its points have {database.points.shape[1]} values, '
                            f'those of the frame {points.shape[1]}; make it again with this config')
        boxes = gravity_boxes(ann['gt_bboxes_3d']).numpy()
        names = np.array(results[fields.CLASSES], str)
        drawn = self._draw(pools, names[ann['gt_labels_3d']])
        added = free_of_overlap(database.boxes[drawn], boxes)
        drawn, pasted = drawn[added], database.boxes[drawn][added]
        covered = rigid.points_in_boxes(points, pasted).any(0)
        clouds = [points[~covered], *map(database.points_of, drawn)]
        cloud = torch.from_numpy(np.concatenate(clouds))
        results[fields.POINTS] = LiDARPoints(cloud, points_dim=cloud.shape[1])
        labels = [results[fields.CLASSES].index(name) for name in database.names[drawn]]
        results['ann_info'] = dict(
            gt_bboxes_3d=LiDARInstance3DBoxes(
                np.concatenate([boxes, pasted]).astype(np.float32), 9, origin=(.5, .5, .5)),
            gt_labels_3d=np.concatenate([ann['gt_labels_3d'], np.array(labels, np.int64)]),
            num_points=np.concatenate([ann['num_points'], database.count[drawn]]),
            visibility=np.pad(ann['visibility'], (0, len(drawn)), constant_values=4),
            valid=np.pad(ann['valid'], (0, len(drawn)), constant_values=True))
        return results

    def _draw(self, pools, names) -> np.ndarray:
        """Numbers of objects, of each class those that are missing."""
        drawn: List[np.ndarray] = [np.zeros(0, np.int64)]
        for name, count in self.counts.items():
            missing = count - int((names == name).sum())
            if missing > 0:
                choice = torch.randint(len(pools[name]), (missing, )).numpy()
                drawn.append(pools[name][choice])
        return np.concatenate(drawn)

    def _open(self, results):
        """The database, and the numbers of the objects of each class that have enough points."""
        if self._opened is None:
            database = ObjectDatabase.load(Path(results['data_root']) / self.database)
            enough, pools = database.count >= self.min_points, {}
            for name in self.counts:
                if name not in results[fields.CLASSES]:
                    raise UserError(f'PasteObjects.counts: the data set has no class {name!r}'
                                    f'{did_you_mean(name, results[fields.CLASSES])}')
                pools[name], = np.nonzero(enough & (database.names == name))
                if not len(pools[name]):
                    raise UserError(f'PasteObjects.counts: {self.database} has no {name} of '
                                    f'{self.min_points} points; leave the class out')
            self._opened = database, pools
        return self._opened


def free_of_overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: which boxes, one after the other, overlap neither others nor an earlier one.

    Args:
        boxes: (N, >=7) that are added.
        others: (M, >=7) that are there.
    """
    everybody = np.concatenate([others[:, :7], boxes[:, :7]])
    overlap = rigid.footprints_overlap(boxes, everybody)
    there = np.arange(len(everybody)) < len(others)
    for n in range(len(boxes)):
        there[len(others) + n] = not (overlap[n] & there).any()
    return there[len(others):]
