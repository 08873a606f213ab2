"""One base data set for bird's-eye-view tasks, one thin class per data set."""
import copy
import logging
import os.path as osp
import random
from typing import Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet3d.datasets import Det3DDataset
from mmdet3d.registry import DATASETS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.logging import print_log

from ..errors import FrameError, UserError, did_you_mean
from ..geometry import rigid
from ..geometry.rigid import RFU_TO_FLU
from ..structures import fields, lidar2global, load_infos
from ..structures.info import number_of_points
from .convention import check_convention
from .image_table import ImageTable


@DATASETS.register_module()
class BEVDataset(Det3DDataset):
    """Frames of an info file; frames without objects are ordinary frames.

    A frame that enters the pipeline has the info's keys with paths joined to ``data_root``, and

    * ``ann_info`` (``eval_ann_info`` in test mode), without ignored classes: ``gt_bboxes_3d``
      LiDARInstance3DBoxes (N, 9) with velocities, NaN where unknown; ``gt_labels_3d`` (N,) int64;
      ``num_points``, ``visibility`` (N,) int64 and ``valid`` (N,) bool as in
      :mod:`mmdet3d_plugin.structures.fields`
    * ``classes``: names of the labels; ``lidar_image``: layout of the scans, where known
    * ``lidar2global``: (4, 4) float64 pose of the LiDAR frame, where known
    * ``img_path``, ``lidar_path``: of the first camera and of the scan, where present
    * ``data_root``, and ``epoch``, from 0, in training with a :class:`.ResumableSampler`

    Categories are matched to classes by name, so the order in the info file does not matter. No
    file of a sensor is touched before a transform loads it.

    In training a frame with a damaged or missing file is replaced by the one after it, with a
    warning for each such file. In test mode it is an error: no frame is ever left out.

    Args:
        ann_file (str): The info file, relative to ``data_root``.
        data_root (str): The folder to which paths in the infos are relative.
        pipeline (list): Transforms.
        metainfo (dict, optional): ``classes`` selects a subset of the data set's classes.
        indices (int | list, optional): Use only these frames (or the first so many).
        max_bad_frames (int): Damaged frames in a row that training replaces; more are an error.
        **kwargs: See mmdet3d's ``Det3DDataset``.

    Raises:
        UserError: The info file is missing or invalid, a class is unknown, there is no object to
            train on, or the boxes are of another convention (:func:`.check_convention`).
    """

    METAINFO: dict = dict(classes=())

    def __init__(self, ann_file: str, data_root: str = '', pipeline: Sequence = (),
                 metainfo: dict = None, modality: dict = None, data_prefix: dict = None,
                 filter_empty_gt: bool = False, max_bad_frames: int = 10, **kwargs):
        self.max_bad_frames, self._bad_files = max_bad_frames, set()
        for name in (metainfo or {}).get('classes', ()):
            if name not in self.METAINFO['classes']:
                raise UserError(f'metainfo.classes: {name!r} is no class of {type(self).__name__}'
                                f'{did_you_mean(name, self.METAINFO["classes"])}')
        super().__init__(
            data_root, ann_file, metainfo=metainfo, pipeline=list(pipeline),
            data_prefix=data_prefix or dict(pts='', img=''), filter_empty_gt=filter_empty_gt,
            modality=modality or dict(use_lidar=True, use_camera=True), **kwargs)

    def full_init(self) -> None:
        """Read the info file, and let the transforms prepare what workers are to share."""
        if self._fully_initialized:
            return
        super().full_init()
        if not self.test_mode:
            self._check_objects()
        for transform in self.pipeline.transforms:
            if hasattr(transform, 'prepare'):
                transform.prepare(self.get_data_info(0))

    def _check_objects(self) -> None:
        """Training needs an object of the classes that are drawn."""
        for transform in self.pipeline.transforms:
            if hasattr(transform, 'labels'):
                drawn = {label for group in transform.labels(self._metainfo['classes'])
                         for label in group}
                if not any(self.num_ins_per_cat[label] for label in drawn):
                    names = ', '.join(str(self._metainfo['classes'][label]) for label in drawn)
                    raise UserError(
                        f'{self.ann_file}: no ground truth to train on: no frame has an object of '
                        f'{names}; choose a split with annotations, or the classes that it has')

    def load_data_list(self) -> List[dict]:
        """Read and check the info file; called once."""
        infos = load_infos(self.ann_file)
        if not infos['data_list']:
            raise UserError(f'{self.ann_file}: no frames; convert the data set again')
        for key, value in infos['metainfo'].items():
            self._metainfo.setdefault(key, value)
        categories = infos['metainfo']['categories']
        check_convention(infos['data_list'], categories.get('car'), self.ann_file)
        classes = list(self._metainfo['classes'])
        self.label_mapping = {-1: -1} | {
            index: classes.index(name) if name in classes else -1
            for name, index in categories.items()}
        return [self._parsed(n, info) for n, info in enumerate(infos['data_list'])]

    def filter_data(self) -> List[dict]:
        """Leave out frames, and count the instances of the others."""
        return self._counted(super().filter_data())

    def _get_unserialized_subset(self, indices: Union[Sequence[int], int]) -> List[dict]:
        return self._counted(super()._get_unserialized_subset(indices))

    def _counted(self, frames):
        """The frames; ``num_ins_per_cat``, which mmdet3d prints, is set to their instances'."""
        counts = np.zeros(len(self._metainfo['classes']), int)
        for frame in frames:
            annotations = frame.get('ann_info') or frame.get('eval_ann_info')
            if annotations:
                np.add.at(counts, annotations['gt_labels_3d'], 1)
        self.num_ins_per_cat = counts.tolist()
        return frames

    def _parsed(self, n, info):
        try:
            return self.parse_data_info(info)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f'{self.ann_file}: data_list[{n}] is not as {type(self).__name__} '
                            f'needs it ({error!r}); convert the data set again') from error

    def parse_frame(self, info: dict, metainfo: Mapping) -> dict:
        """A frame that is not of the info file, as it enters the pipeline.

        Args:
            info (dict): The frame; changed in place.
            metainfo (dict): Of its info file.
        """
        reader = copy.copy(self)
        reader._metainfo = {**self._metainfo, **metainfo}
        frame = reader.parse_data_info(info)
        frame[fields.CLASSES] = tuple(reader._metainfo['classes'])
        if 'lidar_image' in metainfo:
            frame['lidar_image'] = metainfo['lidar_image']
        return frame

    def parse_data_info(self, info: dict) -> dict:
        """Join paths and add the annotations of one frame."""
        points = info.get('lidar_points')
        for name, camera in all_cameras(info):
            if 'img_path' not in camera:  # an array
                continue
            prefix = self.data_prefix.get(name, self.data_prefix.get('img', ''))
            camera['img_path'] = osp.join(prefix, camera['img_path'])
            info.setdefault('img_path', camera['img_path'])
        if points is not None:
            points['lidar_path'] = osp.join(self.data_prefix.get('pts', ''), points['lidar_path'])
            info['lidar_path'] = points['lidar_path']
        if 'ego2global' in info:
            info[fields.LIDAR2GLOBAL] = lidar2global(info)
        if not self.test_mode:
            info['ann_info'] = self.parse_ann_info(info)
        elif self.load_eval_anns:
            info['eval_ann_info'] = self.parse_ann_info(info)
        return info

    def parse_ann_info(self, info: dict) -> dict:
        """Annotations of one frame, without ignored classes; see the class."""
        known = [(i, label) for i in info['instances'] if (label := self.label_of(i)) >= 0]
        boxes = [[*i['bbox_3d'], *i.get('velocity', (np.nan, np.nan))] for i, _ in known]
        boxes = np.array(boxes, np.float32).reshape(-1, 9)
        return dict(
            gt_bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9, origin=(0.5, 0.5, 0.5)),
            gt_labels_3d=np.array([label for _, label in known], np.int64),
            num_points=np.array([number_of_points(i) for i, _ in known], np.int64),
            visibility=np.array([i.get('visibility', 4) for i, _ in known], np.int64),
            valid=np.array([i.get('bbox_3d_isvalid', True) for i, _ in known], bool))

    def label_of(self, instance: dict) -> int:
        """Label of an instance, -1 to ignore it."""
        return self.label_mapping[instance['bbox_label_3d']]

    def get_data_info(self, idx: int) -> dict:
        """One frame as it enters the pipeline."""
        info = super().get_data_info(idx)
        info[fields.EPOCH] = getattr(idx, 'epoch', 0)
        info['data_root'] = self.data_root
        info['classes'] = tuple(self._metainfo['classes'])
        if 'lidar_image' in self._metainfo:
            info['lidar_image'] = self._metainfo['lidar_image']
        return info

    def __getitem__(self, idx: Union[int, 'np.integer']) -> dict:
        """A packed frame; an index with a ``seed`` fixes every random draw of the transforms."""
        seed, at = getattr(idx, 'seed', None), idx
        for bad in range(1, self.max_bad_frames + 2):
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002 (what transforms of mmcv and mmdet3d draw from)
                torch.manual_seed(seed)
            try:
                return super().__getitem__(at)
            except FrameError as error:
                if self.test_mode:
                    raise
                if bad > min(self.max_bad_frames, len(self) - 1):
                    raise UserError(f'{self.ann_file}: {bad} frames in a row cannot be loaded; '
                                    f'check data_root and convert again; the last: '
                                    f'{error}') from error
                self._warn(error)
                at = idx - int(idx) + (int(at) + 1) % len(self)  # of the same epoch

    def _warn(self, error):
        """Say once for each file that its frame is replaced, and how many there were."""
        if str(error) not in self._bad_files:
            self._bad_files.add(str(error))
            print_log(f'{self.ann_file}: frame replaced by the next one ({len(self._bad_files)} '
                      f'bad files so far in this process): {error}', 'current', logging.WARNING)


def all_cameras(info: dict) -> Iterator[Tuple[str, dict]]:
    """Name and camera of each image of a frame, the current ones first, then past ones."""
    for images in (info.get('images', {}), *(s['images'] for s in info.get('image_sweeps', ()))):
        yield from images.items()


@DATASETS.register_module()
class Dur360BEVDataset(BEVDataset):
    """Dur360BEV: one dual-fisheye image and one OS1-128 scan a frame (toytown likewise)."""

    METAINFO = dict(
        classes=('car', 'bus', 'truck', 'pedestrian'),
        palette=[(255, 158, 0), (255, 99, 71), (180, 90, 0), (0, 0, 230)])


@DATASETS.register_module()
class Kitti360BEVDataset(BEVDataset):
    """KITTI-360: two fisheye images and one HDL-64E scan a frame, in the velodyne's frame."""

    METAINFO = dict(
        classes=('car', 'truck', 'bus', 'caravan', 'trailer', 'motorcycle', 'bicycle', 'person',
                 'rider', 'train', 'unknown vehicle'))


@DATASETS.register_module()
class NuScenesBEVDataset(BEVDataset):
    """NuScenes: six pinhole images and one 32-beam scan a frame.

    Info files of a whole set are in nuScenes' LiDAR frame, as mmdet3d expects them; their samples
    are transformed to the axes of the car by :func:`change_frame`. So the BEV is that of Lift-Splat
    and SimpleBEV, and heights are those of the other data sets. As there, every ``vehicle.*`` box
    is a vehicle (``VEHICLES``), emergency vehicles and boxes without points included.

    Args:
        *args: See :class:`BEVDataset`.
        min_visibility (int): Leave out boxes of which less is visible: 2 = 40 %, 3 = 60 %,
            4 = 80 %; 0 keeps all.
        frame (str): Frame of the samples; boxes, points and cameras are in the same one.
            ``'ego'``: axes of the car, origin above the rear axle at the height of the LiDAR;
            ``'ego_ground'``: the same with the origin on the ground, nuScenes' own ego frame, in
            which BEVDepth works; ``'lidar'``: axes of the LiDAR, x right and y forward, in which
            BEVFusion and BEVDet work.
        image_table (str, optional): ``nuscenes_images_{split}.npz`` of the info file, relative to
            ``data_root``; gives each frame its ``image_sweeps``, for models that read past images.
        **kwargs: See :class:`BEVDataset`.
    """

    METAINFO = dict(classes=('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle',
                             'motorcycle', 'pedestrian', 'traffic_cone', 'barrier',
                             'emergency_vehicle'))
    VEHICLES = (*METAINFO['classes'][:7], 'emergency_vehicle')
    FRAMES = ('ego', 'ego_ground', 'lidar')

    @classmethod
    def vehicle_labels(cls) -> list:
        """Labels of ``VEHICLES`` among all classes."""
        return [cls.METAINFO['classes'].index(name) for name in cls.VEHICLES]

    def __init__(self, *args, min_visibility: int = 0, frame: str = 'ego',
                 image_table: Optional[str] = None, **kwargs):
        if frame not in self.FRAMES:
            raise UserError(f'NuScenesBEVDataset.frame: {frame!r} is none'
                            f'{did_you_mean(str(frame), self.FRAMES)}')
        self.min_visibility, self.frame = min_visibility, frame
        self.image_table = image_table
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> List[dict]:
        """Read and check the info file and the table of images; called once."""
        frames = super().load_data_list()
        if self.image_table is not None:
            self._images = ImageTable(osp.join(self.data_root, self.image_table))
            self._images.check(frame['token'] for frame in frames)
            for n, frame in enumerate(frames):
                frame['image_row'] = n
        return frames

    def get_data_info(self, idx: int) -> dict:
        """One frame as it enters the pipeline."""
        info = super().get_data_info(idx)
        if self.image_table is not None:
            info['image_sweeps'] = self._images.before(
                info['image_row'], info['images'], lidar2global(info), self._join)
        return info

    def _join(self, camera: str, path: str) -> str:
        return osp.join(self.data_prefix.get(camera, self.data_prefix.get('img', '')), path)

    def parse_data_info(self, info: dict) -> dict:
        """Join paths, change to the frame of the samples, and add the annotations of one frame."""
        points = info.get('lidar_points', {})
        if self._metainfo.get('lidar_frame', '').startswith('x right'):
            change_frame(info, self.frame)
            points['lidar_path'] = f'samples/LIDAR_TOP/{points["lidar_path"]}'
            for name, camera in info['images'].items():  # past images have their folder with them
                if 'img_path' in camera:
                    camera['img_path'] = f'samples/{name}/{camera["img_path"]}'
        elif self.frame == 'lidar' and 'lidar2sensor' in points:
            _transform_frame(info, np.linalg.inv(RFU_TO_FLU) @ np.array(points['lidar2sensor']))
        elif self.frame == 'ego_ground':
            if 'lidar2ego' not in points:
                raise UserError(f"{self.ann_file}: frame='ego_ground' needs lidar2ego of "
                                'lidar_points; convert the data again')
            _transform_frame(info, np.array(points['lidar2ego']))
        info['map_root'] = self.data_root
        if 'ego2global' in info and 'lidar2ego' in points:
            info['box_up'] = _up(info)
        for sweep in info.get('lidar_sweeps', ()):
            points = sweep['lidar_points']
            points['lidar_path'] = osp.join(self.data_prefix.get('pts', ''), points['lidar_path'])
        return super().parse_data_info(info)

    def parse_ann_info(self, info: dict) -> dict:
        """As of the base class, without hidden boxes."""
        instances = [instance for instance in info['instances']
                     if instance.get('visibility', 4) >= self.min_visibility]
        return super().parse_ann_info(dict(info, instances=instances))

    def label_of(self, instance: dict) -> int:
        """Label of an instance, -1 to ignore it."""
        classes = self._metainfo['classes']
        if instance.get('category', '').startswith('vehicle.emergency.'):
            return classes.index('emergency_vehicle') if 'emergency_vehicle' in classes else -1
        return super().label_of(instance)


def change_frame(info: dict, frame: str = 'ego') -> None:
    """Transform a sample from nuScenes' LiDAR frame to the axes of the ego vehicle, in place.

    They are x forward, y left, z up; the origin is above the rear axle, at the height of the
    LiDAR. Files stay as they are: ``scan2lidar`` of ``lidar_points`` and of each sweep's brings
    their points there. ``ego2global`` stays, ``lidar2ego`` follows.

    Args:
        info: a frame with ``lidar2ego`` in its ``lidar_points``.
        frame: ``'ego'``; ``'ego_ground'``: the origin is on the ground; ``'lidar'``: only sweeps
            are transformed, to the frame of the key scan.
    """
    lidar2ego, transform = np.array(info['lidar_points']['lidar2ego']), np.eye(4)
    if frame != 'lidar':
        height = lidar2ego[2, 3] if frame == 'ego' else 0.0
        transform = rigid.rigid(translation=(0, 0, -height)) @ lidar2ego
    info['lidar_points']['lidar2sensor'] = RFU_TO_FLU
    _transform_frame(info, transform)


def _up(info):
    """(3,) direction in which boxes stand, which are upright in the world; z without a pose."""
    pose = lidar2global(info)
    return (0.0, 0.0, 1.0) if pose is None else pose[2, :3]


def _transform_frame(info, transform):
    """Transform the coordinates of a sample by a (4, 4) matrix, in place."""
    points, back, up = info['lidar_points'], np.linalg.inv(transform), _up(info)
    for key in ('lidar2ego', 'lidar2sensor'):
        points[key] = (np.array(points.get(key, np.eye(4))) @ back).tolist()
    points['scan2lidar'] = transform.tolist()
    for sweep in info.get('lidar_sweeps', ()):
        stored = np.array(sweep['lidar_points']['lidar2sensor'])  # points as rows: p R - t
        to_key = rigid.rigid(stored[:3, :3].T, -stored[:3, 3])
        sweep['lidar_points']['scan2lidar'] = (transform @ to_key).tolist()
    for _, camera in all_cameras(info):
        camera['lidar2cam'] = (np.array(camera['lidar2cam']) @ back).tolist()
    instances = info.get('instances', ())
    boxes = np.array([[*i['bbox_3d'], *i.get('velocity', (0, 0))] for i in instances])
    moved = rigid.transform_boxes(transform, boxes.reshape(-1, 9), up).tolist()
    for instance, box in zip(instances, moved):
        instance['bbox_3d'] = box[:7]
        if 'velocity' in instance:
            instance['velocity'] = box[7:]
