"""Which annotated boxes are trained on."""
from typing import List, Optional, Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ...errors import UserError, did_you_mean
from ...structures import fields
from .formatting import augmented_boxes


@TRANSFORMS.register_module()
class FilterBoxes(BaseTransform):
    """Leave out annotated boxes; a frame may be left without any.

    Goes after the augmentation, since the range is that of the augmented frame, and before
    :class:`RasterizeBEV` and :class:`PackBEVInputs`. Not for tests: metrics have their own rules.

    Args:
        point_cloud_range (tuple, optional): x, y, z of the lowest and of the highest corner,
            metres; boxes whose centre is outside, seen from above, are left out.
        classes (tuple, optional): Names of the classes to keep. Labels stay as they are.
        min_points (int): LiDAR and radar points in the box at least. Boxes of which the info file
            does not say it are kept.
        min_visibility (int): NuScenes' 2 = 40 %, 3 = 60 %, 4 = 80 % at least.
        valid (bool): Leave out boxes that the data set calls invalid (``bbox_3d_isvalid``); in
            nuScenes those without points.

    Raises:
        UserError: Targets were rasterised before, a class is unknown, or the range is empty.
    """

    def __init__(self, point_cloud_range: Optional[Sequence[float]] = None,
                 classes: Optional[Sequence[str]] = None, min_points: int = 0,
                 min_visibility: int = 0, valid: bool = False):
        if point_cloud_range is not None:
            corners = np.array(point_cloud_range, np.float64).reshape(-1)
            if corners.shape != (6,) or not (corners[:3] < corners[3:]).all():
                raise UserError('FilterBoxes.point_cloud_range: expected x, y, z of the lowest and '
                                f'of the highest corner, got {point_cloud_range}')
            point_cloud_range = corners
        self.point_cloud_range, self.classes = point_cloud_range, classes
        self.min_points, self.min_visibility, self.valid = min_points, min_visibility, valid

    def transform(self, results: dict) -> dict:
        """Filter."""
        if fields.GT_BEV in results:
            raise UserError('FilterBoxes: the targets are rasterised already; put it before '
                            'RasterizeBEV in the pipeline')
        for key in {'ann_info', 'eval_ann_info'} & set(results):
            kept = self._kept(results, results[key])
            results[key] = {name: values[kept] for name, values in results[key].items()}
        return results

    def labels(self, classes: Sequence[str]) -> List[List[int]]:
        """Labels of the classes that are kept, among the data set's ``classes``."""
        for name in self.classes or ():
            if name not in classes:
                raise UserError(f'FilterBoxes.classes: the data set has no class {name!r}'
                                f'{did_you_mean(name, classes)}')
        return [[list(classes).index(name) for name in self.classes or classes]]

    def _kept(self, results, ann):
        boxes, labels = augmented_boxes(results)
        kept = np.isin(labels, self.labels(results[fields.CLASSES])[0])
        kept &= (ann['num_points'] < 0) | (ann['num_points'] >= self.min_points)
        kept &= ann['visibility'] >= self.min_visibility
        if self.valid:
            kept &= ann['valid']
        if self.point_cloud_range is not None:
            low, high = self.point_cloud_range[:2], self.point_cloud_range[3:5]
            kept &= ((boxes[:, :2] > low) & (boxes[:, :2] < high)).all(1)
        return kept
