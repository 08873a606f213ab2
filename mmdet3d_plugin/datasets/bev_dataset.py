"""One base data set for bird's-eye-view tasks, one thin class per data set."""
import os.path as osp
import random
from typing import List, Sequence, Union

import numpy as np
import torch
from mmdet3d.datasets import Det3DDataset
from mmdet3d.registry import DATASETS
from mmdet3d.structures import LiDARInstance3DBoxes

from ..errors import UserError, did_you_mean
from ..structures import load_infos


@DATASETS.register_module()
class BEVDataset(Det3DDataset):
    """Frames of an info file; frames without objects are ordinary frames.

    A frame that enters the pipeline has the info's keys with paths joined to ``data_root``, and

    * ``ann_info`` (``eval_ann_info`` in test mode): ``gt_bboxes_3d`` LiDARInstance3DBoxes (N, 7)
      and ``gt_labels_3d`` (N,) int64, without ignored classes
    * ``classes``: names of the labels; ``lidar_image``: layout of the scans, where known
    * ``img_path``, ``lidar_path``: of the first camera and of the scan, where present

    Categories are matched to classes by name, so the order in the info file does not matter. No
    file of a sensor is touched before a transform loads it.

    Args:
        ann_file (str): The info file, relative to ``data_root``.
        data_root (str): The folder to which paths in the infos are relative.
        pipeline (list): Transforms.
        metainfo (dict, optional): ``classes`` selects a subset of the data set's classes.
        indices (int | list, optional): Use only these frames (or the first so many).
        **kwargs: See mmdet3d's ``Det3DDataset``.

    Raises:
        UserError: The info file is missing or invalid, or a class is unknown.
    """

    METAINFO: dict = dict(classes=())

    def __init__(self, ann_file: str, data_root: str = '', pipeline: Sequence = (),
                 metainfo: dict = None, modality: dict = None, data_prefix: dict = None,
                 filter_empty_gt: bool = False, **kwargs):
        for name in (metainfo or {}).get('classes', ()):
            if name not in self.METAINFO['classes']:
                raise UserError(f'metainfo.classes: {name!r} is no class of {type(self).__name__}'
                                f'{did_you_mean(name, self.METAINFO["classes"])}')
        super().__init__(
            data_root, ann_file, metainfo=metainfo, pipeline=list(pipeline),
            data_prefix=data_prefix or dict(pts='', img=''), filter_empty_gt=filter_empty_gt,
            modality=modality or dict(use_lidar=True, use_camera=True), **kwargs)

    def load_data_list(self) -> List[dict]:
        """Read and check the info file; called once."""
        infos = load_infos(self.ann_file)
        if not infos['data_list']:
            raise UserError(f'{self.ann_file}: no frames; convert the data set again')
        for key, value in infos['metainfo'].items():
            self._metainfo.setdefault(key, value)
        classes = list(self._metainfo['classes'])
        self.label_mapping = {-1: -1} | {
            index: classes.index(name) if name in classes else -1
            for name, index in infos['metainfo']['categories'].items()}
        return [self.parse_data_info(info) for info in infos['data_list']]

    def parse_data_info(self, info: dict) -> dict:
        """Join paths and add the annotations of one frame."""
        images, points = info.get('images', {}), info.get('lidar_points')
        for name, camera in images.items():
            prefix = self.data_prefix.get(name, self.data_prefix.get('img', ''))
            camera['img_path'] = osp.join(prefix, camera['img_path'])
            info.setdefault('img_path', camera['img_path'])
        if points is not None:
            points['lidar_path'] = osp.join(self.data_prefix.get('pts', ''), points['lidar_path'])
            info['lidar_path'] = points['lidar_path']
        if not self.test_mode:
            info['ann_info'] = self.parse_ann_info(info)
        elif self.load_eval_anns:
            info['eval_ann_info'] = self.parse_ann_info(info)
        return info

    def parse_ann_info(self, info: dict) -> dict:
        """Boxes and labels of one frame, without ignored classes."""
        labels = [self.label_mapping[i['bbox_label_3d']] for i in info['instances']]
        boxes = [i['bbox_3d'] for i, label in zip(info['instances'], labels) if label >= 0]
        labels = np.array([label for label in labels if label >= 0], np.int64)
        for label in labels:
            self.num_ins_per_cat[label] += 1
        boxes = np.array(boxes, np.float32).reshape(-1, 7)
        return dict(gt_bboxes_3d=LiDARInstance3DBoxes(boxes, origin=(0.5, 0.5, 0.5)),
                    gt_labels_3d=labels)

    def get_data_info(self, idx: int) -> dict:
        """One frame as it enters the pipeline."""
        info = super().get_data_info(idx)
        info['classes'] = tuple(self._metainfo['classes'])
        if 'lidar_image' in self._metainfo:
            info['lidar_image'] = self._metainfo['lidar_image']
        return info

    def __getitem__(self, idx: Union[int, 'np.integer']) -> dict:
        """A packed frame; an index with a ``seed`` fixes every random draw of the transforms."""
        seed = getattr(idx, 'seed', None)
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002 (what transforms of mmcv and mmdet3d draw from)
            torch.manual_seed(seed)
        return super().__getitem__(idx)


@DATASETS.register_module()
class Dur360BEVDataset(BEVDataset):
    """Dur360BEV: one dual-fisheye picture and one OS1-128 scan a frame (toytown likewise)."""

    METAINFO = dict(
        classes=('car', 'bus', 'truck', 'pedestrian'),
        palette=[(255, 158, 0), (255, 99, 71), (180, 90, 0), (0, 0, 230)])


@DATASETS.register_module()
class Kitti360BEVDataset(BEVDataset):
    """KITTI-360: two fisheye pictures and one HDL-64E scan a frame, in the velodyne's frame."""

    METAINFO = dict(
        classes=('car', 'truck', 'bus', 'caravan', 'trailer', 'motorcycle', 'bicycle', 'person',
                 'rider', 'train', 'unknown vehicle'))


@DATASETS.register_module()
class NuScenesBEVDataset(BEVDataset):
    """NuScenes frames in our LiDAR frame: six pinhole pictures and one 32-beam sweep.

    Lift-Splat and SimpleBEV count every ``vehicle.*`` box as a vehicle: ``VEHICLES``.
    """

    METAINFO = dict(classes=('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle',
                             'motorcycle', 'pedestrian', 'traffic_cone', 'barrier'))
    VEHICLES = METAINFO['classes'][:7]
