"""Ground truth on the BEV grid, and packing."""
from typing import List, Sequence, Union

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData, PixelData

from ...errors import UserError, did_you_mean
from ...geometry import BEVGrid, raster, rigid
from ...structures import fields, gravity_boxes

_MORE = ('num_points', 'visibility', 'valid')  # of a box, besides its label


def augmented_boxes(results: dict):
    """Boxes and labels of a frame after its BEV augmentation.

    Annotations stay in the raw LiDAR frame; ``bev_aug`` (4, 4), where present, moves them here and
    nowhere else.

    Returns:
        tuple: (N, 9) float32 gravity-centre boxes with velocities, and (N,) int64 labels, or
        (None, None) for a frame without annotations.
    """
    ann = results.get('ann_info', results.get('eval_ann_info'))
    if ann is None:
        return None, None
    values = gravity_boxes(ann['gt_bboxes_3d']).numpy()
    if fields.BEV_AUG in results:
        values = rigid.transform_boxes(results[fields.BEV_AUG], values).astype(np.float32)
    return values, ann['gt_labels_3d']


@TRANSFORMS.register_module()
class RasterizeBEV(BaseTransform):
    """Boxes -> ``gt_bev``: ``seg`` (K, R, C), ``centerness`` (1, R, C), ``offset`` (2, R, C).

    On request also ``instances`` (K, R, C) int32: 1 + the index of the box in ``gt_instances_3d``.
    Frames without annotations (prediction on new data) pass without ``gt_bev``.

    Args:
        grid (dict): The BEV grid, as the model's.
        classes (list): One group of class names (or label indices) per channel.
        method (str): ``'exact'``, ``'release'`` or ``'lift_splat'``; see
            :func:`geometry.raster.rasterize`.
        sigma (float): Of the centerness, in cells.
        instances (bool): Whether to add the instances, which :class:`BEVInstanceMetric` needs.
    """

    def __init__(self, grid: dict, classes: Sequence[Sequence[Union[str, int]]] = (
            ('car', 'bus', 'truck'),), method: str = 'exact', sigma: float = 3.0,
            instances: bool = False):
        self.grid = BEVGrid(**grid)
        self.classes, self.method, self.sigma = [list(g) for g in classes], method, sigma
        self.instances = instances
        raster.rasterize(np.zeros((0, 7)), [], self.grid, len(self.classes), method)

    def transform(self, results: dict) -> dict:
        """Rasterise."""
        results[fields.BEV_GRID] = self.grid.asdict()
        boxes, labels = augmented_boxes(results)
        if boxes is not None:
            channel = np.full(len(results['classes']) + 1, -1)
            for k, group in enumerate(self.labels(results['classes'])):
                channel[group] = k
            maps = raster.rasterize(boxes, channel[labels], self.grid, len(self.classes),
                                    self.method, self.sigma, self._up(results))
            if not self.instances:
                del maps[fields.INSTANCES]
            results[fields.GT_BEV] = maps
        return results

    @staticmethod
    def _up(results):
        """Direction in which boxes stand, where the data set knows that the vehicle is tilted."""
        up = np.asarray(results.get('box_up', (0.0, 0.0, 1.0)), np.float64)
        return np.asarray(results.get(fields.BEV_AUG, np.eye(4)))[:3, :3] @ up

    def labels(self, classes: Sequence[str]) -> List[List[int]]:
        """Labels of the classes of each channel, among the data set's ``classes``."""
        return [[self._label(name, classes) for name in group] for group in self.classes]

    @staticmethod
    def _label(name, classes):
        if not isinstance(name, str):
            return name
        if name not in classes:
            raise UserError(f'RasterizeBEV.classes: the data set has no class {name!r}'
                            f'{did_you_mean(name, classes)}')
        return classes.index(name)


@TRANSFORMS.register_module()
class PackBEVInputs(BaseTransform):
    """Pack what the model reads into ``inputs`` and everything else into a ``Det3DDataSample``.

    Names and shapes are those of :mod:`mmdet3d_plugin.structures.fields`.

    Args:
        keys (tuple): Inputs to pack, of those that the pipeline made.
        meta_keys (tuple): More entries of the frame to keep as metainfo.
    """

    def __init__(self, keys: Sequence[str] = (fields.IMG, fields.LIDAR_IMG, fields.POINTS),
                 meta_keys: Sequence[str] = ()):
        known = (fields.IMG, fields.LIDAR_IMG, fields.POINTS)
        for key in keys:
            if key not in known and not fields.is_points(key):
                raise UserError(f'keys: unknown input {key!r}{did_you_mean(key, known)}')
        self.keys, self.meta_keys = tuple(keys), (*fields.META_KEYS, *meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack."""
        pack = {fields.IMG: self._images, fields.POINTS: lambda points: points.tensor,
                fields.LIDAR_IMG: torch.from_numpy}
        inputs = {key: pack[fields.POINTS if fields.is_points(key) else key](results[key])
                  for key in self.keys if key in results}
        times = fields.num_times(results.get(fields.CAMERAS, ()))
        if fields.IMG in inputs and times > 1:
            inputs[fields.IMG] = inputs[fields.IMG].unflatten(0, (times, -1))
        sample = Det3DDataSample(
            metainfo={key: results[key] for key in self.meta_keys if key in results})
        if fields.GT_BEV in results:
            maps = {key: torch.from_numpy(v) for key, v in results[fields.GT_BEV].items()}
            sample.gt_bev = PixelData(**maps)
        boxes, labels = augmented_boxes(results)
        if boxes is not None:
            ann = results.get('ann_info', results.get('eval_ann_info'))
            sample.gt_instances_3d = InstanceData(
                bboxes_3d=LiDARInstance3DBoxes(boxes, boxes.shape[1], origin=(0.5, 0.5, 0.5)),
                labels_3d=torch.from_numpy(labels),
                **{key: torch.from_numpy(ann[key]) for key in _MORE if key in ann})
        return dict(inputs=inputs, data_samples=sample)

    @staticmethod
    def _images(images):
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise UserError(f'the images of one frame differ in shape: {sorted(shapes)}; resize '
                            'them before packing')
        if len(images) == 1:
            pixels = np.ascontiguousarray(images[0])[None]
        else:
            pixels = np.stack(images)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)  # in memory the channels stay last
