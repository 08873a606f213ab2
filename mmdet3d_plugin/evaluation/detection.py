"""nuScenes' 3D detection metrics, from info files alone."""
import json
import logging
import os.path as osp
from collections import defaultdict
from functools import cached_property
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.structures import InstanceData

from ..checkpoints import atomic_write
from ..errors import UserError, did_you_mean, parse_errors
from ..structures import fields, gravity_boxes, load_infos
from . import scores
from .detection_scores import (
    ERRORS,
    Truth,
    class_scores,
    devkit_box,
    summary,
    table,
    truth_of,
    world_boxes,
)

_MOVING = 0.2  # m/s, of BEVDet's and BEVDepth's attributes
_VEHICLES = ('car', 'truck', 'bus', 'trailer', 'construction_vehicle')
_CYCLES = ('bicycle', 'motorcycle')
_MODALITIES = ('use_camera', 'use_lidar', 'use_radar', 'use_map', 'use_external')


def attribute_of(name: str, speed: float) -> str:
    """NuScenes' attribute of a class at a speed in m/s; empty where the class has none."""
    moving = speed > _MOVING
    if name in _VEHICLES:
        still = 'vehicle.stopped' if name == 'bus' else 'vehicle.parked'
        return 'vehicle.moving' if moving else still
    if name in _CYCLES:
        return 'cycle.with_rider' if moving else 'cycle.without_rider'
    if name == 'pedestrian':
        return 'pedestrian.moving' if moving else 'pedestrian.standing'
    return ''


def found_share(predicted: InstanceData, truth: InstanceData, distance: float,
                score: float = 0.1) -> float:
    """Share of the objects near which there is a box of their class.

    Args:
        predicted (InstanceData): ``bboxes_3d``, ``scores_3d`` and ``labels_3d``.
        truth (InstanceData): ``bboxes_3d`` and ``labels_3d``, of one frame as the boxes.
        distance (float): Metres between the centres, seen from above, at most.
        score (float): Of a box at least.

    Returns:
        float: Between 0 and 1; NaN without objects.
    """
    predicted = predicted[predicted.scores_3d >= score]
    apart = torch.cdist(truth.bboxes_3d.bev[:, :2], predicted.bboxes_3d.bev[:, :2].to(
        truth.bboxes_3d.tensor))
    same = truth.labels_3d[:, None] == predicted.labels_3d.to(truth.labels_3d)
    return float(((apart <= distance) & same).any(1).float().mean())


@METRICS.register_module()
class NuScenesDetectionMetric(BaseMetric):
    """NuScenes' detection scores: mAP, NDS and five errors of the matches, by the devkit.

    ``mAP``, ``NDS``, ``mATE`` (m), ``mASE``, ``mAOE`` (rad), ``mAVE`` (m/s), ``mAAE``; for each
    class ``AP_<class>``, ``AP_<class>_<distance>`` and the errors, such as ``ATE_car``. AP, NDS,
    ASE and AAE are fractions. The devkit's matching and averaging run on boxes of the info file,
    so its tables are not needed, and any part of a data set, or another data set, can be scored.
    Boxes beyond the class's range of the vehicle, annotated boxes without LiDAR or radar points,
    and two-wheelers in bicycle racks are left out, as in the devkit. The 500 best boxes of a frame
    count.

    Convention: a class without ground truth has NaN in place of scores, with a warning, and does
    not count in the means; the same holds for velocities and attributes that are not annotated, and
    NDS is NaN where a part of it is. With ``absent='devkit'`` such a class has AP 0 and errors of 1
    as in the devkit; where every class has ground truth, both are the same.

    The ground truth is that of the data set which is evaluated. ``prepare``, which the tools call
    when they build a loop, reads it before the first batch. With mmengine's own Runner
    ``ann_file`` is needed. Predictions are ``pred_instances_3d`` (see
    :mod:`mmdet3d_plugin.structures.fields`); their attributes follow from class and speed.

    Args:
        ann_file (str, optional): The info file with the ground truth; default the data set's.
        data_root (str): The folder to which ``ann_file`` is relative.
        classes (tuple, optional): Classes that are scored; default all of the data set.
        class_range (dict, optional): Metres from the vehicle for each class, in addition to, or in
            place of, those of nuScenes (30 to 50 m).
        absent (str): ``'skip'`` or ``'devkit'``.
        modality (dict, optional): ``use_camera``, ``use_lidar``, ``use_radar``, ``use_map`` and
            ``use_external`` of the submission; those left out are False. Default: the camera.
        jsonfile_prefix (str, optional): Folder in which the submission is written, as
            ``pred_instances_3d/results_nusc.json``. Poses are needed.
        format_only (bool): Write the submission without scoring it.
        eval_version (str): The devkit's configuration.
        **kwargs: See mmengine's ``BaseMetric``.

    Raises:
        UserError: A setting is wrong; the info file and the data set have other frames; a frame was
            not predicted, or a prediction is not finite.
    """

    default_prefix = 'det'

    def __init__(self, ann_file: Optional[str] = None, data_root: str = '',
                 classes: Optional[Sequence[str]] = None,
                 class_range: Optional[Mapping[str, float]] = None, absent: str = 'skip',
                 modality: Optional[Mapping[str, bool]] = None,
                 jsonfile_prefix: Optional[str] = None, format_only: bool = False,
                 eval_version: str = 'detection_cvpr_2019', **kwargs):
        super().__init__(**kwargs)
        if absent not in ('skip', 'devkit'):
            raise UserError(f"NuScenesDetectionMetric.absent: expected 'skip' or 'devkit', got "
                            f'{absent!r}')
        modality = dict(use_camera=True) if modality is None else modality
        for name in modality:
            if name not in _MODALITIES:
                raise UserError(f'NuScenesDetectionMetric.modality: {name!r} is none'
                                f'{did_you_mean(name, _MODALITIES)}')
        if format_only and jsonfile_prefix is None:
            raise UserError('NuScenesDetectionMetric: format_only=True writes the submission '
                            'alone; name its folder with jsonfile_prefix')
        self.ann_file = None if ann_file is None else osp.join(data_root, ann_file)
        self.classes, self.absent, self.modality = classes, absent, dict(modality)
        self.jsonfile_prefix, self.format_only = jsonfile_prefix, format_only
        self.eval_version, self.class_range = eval_version, dict(class_range or {})
        self.ranges: Dict[str, float] = {}
        self.truth: Optional[Dict[str, Truth]] = None
        self._cut = False

    def names(self) -> List[str]:
        """Names of the metrics, known without data; those of single classes begin with them."""
        return ['mAP', 'NDS', *(f'm{error}' for error in ERRORS), 'AP', *ERRORS]

    # Ground truth ---------------------------------------------------------------------------------

    def prepare(self, dataset: Any) -> None:
        """Read the ground truth before the inference, and check that it is of this data set.

        Args:
            dataset: With ``get_data_info(n)``, the length and the ``metainfo``.
        """
        frames = (dataset.get_data_info(n) for n in range(len(dataset)))
        self._choose_classes(dataset.metainfo['classes'])
        if self.ann_file is None:
            self._read(frames, dataset.metainfo['categories'])
        else:
            self._load()
            self._check_tokens([frame['token'] for frame in frames])
        if not any(len(truth.boxes) for truth in self.truth.values()):
            way = '' if self.jsonfile_prefix else (
                '; set jsonfile_prefix=DIR of this metric to write the submission')
            print_log('NuScenesDetectionMetric: the data have no annotations: nothing to score'
                      f'{way}', 'current', logging.WARNING)

    def _load(self) -> None:
        infos = load_infos(self.ann_file)
        self._read(infos['data_list'], infos['metainfo']['categories'])

    def _read(self, frames: Iterable[Mapping], categories: Mapping[str, int]) -> None:
        names = {index: name for name, index in categories.items() if name in self.ranges}
        truths = (truth_of(frame, names) for frame in frames)
        self.truth = {truth.token: truth for truth in truths}

    def _check_tokens(self, tokens: Sequence[str]) -> None:
        """The frames that are predicted are those of the ground truth."""
        other = sorted(set(tokens) ^ set(self.truth))
        if other:
            where = 'only the data set' if other[0] in set(tokens) else 'it alone'
            raise UserError(
                f'NuScenesDetectionMetric.ann_file: {self.ann_file} has {len(self.truth)} frames, '
                f'the data set {len(tokens)}; {len(other)} are in one of them only ({where} has '
                f'{other[0]}); leave ann_file out, or name that of the data set')

    def _choose_classes(self, known: Sequence[str]) -> None:
        """Set the classes that are scored, and their ranges."""
        for name in self.classes or ():
            if name not in known:
                raise UserError(f'NuScenesDetectionMetric.classes: the data set has no class '
                                f'{name!r}{did_you_mean(name, known)}')
        ranges = {**self.config.class_range, **self.class_range}
        for name in self.classes or known:
            if name not in ranges:
                raise UserError(
                    f'NuScenesDetectionMetric.class_range: no range of the class {name!r}; add '
                    'class_range=dict(...) in metres, or leave the class out: classes=(...)')
        self.ranges = {name: float(ranges[name]) for name in self.classes or known}

    @cached_property
    def config(self):
        """The devkit's ``DetectionConfig``."""
        with parse_errors(f'NuScenesDetectionMetric.eval_version: {self.eval_version!r} is no '
                          'configuration of the devkit', 'it needs pip install nuscenes-devkit'):
            from nuscenes.eval.common.config import config_factory
            return config_factory(self.eval_version)

    # Predictions ----------------------------------------------------------------------------------

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Append the boxes of each sample in the world: token, boxes, names and scores."""
        for sample in data_samples:
            for key in ('pred_instances_3d', 'token'):
                if key not in sample:
                    raise UserError(f'NuScenesDetectionMetric: the sample has no {key}; the model '
                                    'needs a detection head, and the pipeline PackBEVInputs')
            classes = sample.get(fields.CLASSES) or self.dataset_meta['classes']
            self._expect(sample['token'], classes)
            self.results.append(self._found(sample, classes))

    def _expect(self, token: str, classes: Sequence[str]) -> None:
        """The frame is one of the ground truth, which is loaded at the latest now."""
        if not self.ranges:
            self._choose_classes(classes)
        if self.truth is None and self.ann_file is not None:
            self._load()
        if self.truth is None and not self.format_only:
            raise UserError('NuScenesDetectionMetric: no ground truth; name the info file of the '
                            'data set: ann_file=PATH')
        if self.truth is not None and token not in self.truth:
            raise UserError(
                f'NuScenesDetectionMetric: frame {token} is not in {self.ann_file or "the data"} '
                f'({len(self.truth)} frames); name the info file of the data set: ann_file=PATH')

    def _found(self, sample: Mapping, classes: Sequence[str]) -> dict:
        found, token = sample['pred_instances_3d'], sample['token']
        values = gravity_boxes(found['bboxes_3d']).detach().cpu().double()
        values = np.pad(values.numpy(), ((0, 0), (0, 9 - values.shape[1])))  # without velocities
        confidence = found['scores_3d'].detach().cpu().double().numpy()
        finite = np.isfinite(values).all(1) & np.isfinite(confidence) & (values[:, 3:6] > 0).all(1)
        if not finite.all():
            raise UserError(
                f'NuScenesDetectionMetric: frame {token}: box {np.argmin(finite)} of the '
                'prediction is not finite, or has no size; check the weights, and the losses of '
                'the training')
        pose = self._pose(sample, token)
        names = np.array([classes[label] for label in found['labels_3d'].tolist()], object)
        kept = np.flatnonzero([name in self.ranges for name in names])
        kept = self._best(kept, confidence)
        return dict(token=token, boxes=world_boxes(values[kept], pose), names=names[kept].tolist(),
                    scores=confidence[kept])

    def _pose(self, sample: Mapping, token: str) -> np.ndarray:
        """(4, 4) from the frame of the predictions to that of the ground truth."""
        in_world = self.truth is not None and self.truth[token].in_world
        if fields.LIDAR2GLOBAL not in sample and (in_world or self.jsonfile_prefix):
            why = 'the ground truth is' if in_world else 'a submission has to be'
            raise UserError(f'NuScenesDetectionMetric: frame {token} has no lidar2global, but '
                            f'{why} in the world; PackBEVInputs packs it where the info file has '
                            'poses (ego2global)')
        pose = np.asarray(sample.get(fields.LIDAR2GLOBAL, np.eye(4)), np.float64)
        return pose @ np.linalg.inv(sample.get(fields.BEV_AUG, np.eye(4)))

    def _best(self, rows: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """As many of the rows as the devkit accepts of a frame, in their order."""
        limit = self.config.max_boxes_per_sample
        if len(rows) > limit and not self._cut:
            self._cut = True
            print_log(f'NuScenesDetectionMetric: a frame has {len(rows)} boxes; of such frames the '
                      f'{limit} with the best scores count, as in nuScenes', 'current',
                      logging.WARNING)
        return np.sort(rows[np.argsort(-confidence[rows], kind='stable')[:limit]])

    # Scores ---------------------------------------------------------------------------------------

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Write the submission if asked for, then score; see the class."""
        found = {result['token']: result for result in results}
        missing = [token for token in self.truth or () if token not in found]
        if missing:
            raise UserError(f'NuScenesDetectionMetric: {len(missing)} of {len(self.truth)} frames '
                            f'were not predicted, such as {missing[0]}; evaluate the whole data '
                            'set')
        found = {token: found[token] for token in self.truth or found}
        if self.jsonfile_prefix:
            self._write(found)
        if self.format_only:
            return {}
        by_class = self._score(found)
        means = summary(by_class, self.config)
        metrics = means | {
            '_'.join([key[:2], name, key[3:]]) if key.startswith('AP_') else f'{key}_{name}': value
            for name, values in by_class.items() for key, value in values.items()}
        self._report(by_class, means, metrics)
        return metrics

    def _score(self, found: Mapping[str, dict]) -> Dict[str, Dict[str, float]]:
        truths = {name: defaultdict(list) for name in self.ranges}
        predictions = {name: defaultdict(list) for name in self.ranges}
        for token, truth in self.truth.items():
            kept = (truth.points != 0) & ~truth.outside(truth.boxes, truth.names, self.ranges)
            for n in np.flatnonzero(kept):
                box = devkit_box(token, truth.boxes[n], truth.names[n], -1.0, truth.attributes[n])
                truths[box.detection_name][token].append(box)
            result = found[token]
            far = truth.outside(result['boxes'], result['names'], self.ranges)
            for n, box in enumerate(_submitted(result)):
                if not far[n]:
                    predictions[box.detection_name][token].append(box)
        config = self.config
        return {name: class_scores(truths[name], predictions[name], name, config,
                                   self.absent == 'skip') for name in self.ranges}

    def _report(self, by_class, means, metrics) -> None:
        print_log(f'nuScenes detection scores\n{table(by_class, means)}', 'current')
        scores.warn_without_truth('NuScenesDetectionMetric', metrics,
                                  [*means, *(f'AP_{name}' for name in by_class)])

    def _write(self, found: Mapping[str, dict]) -> None:
        """The submission; it appears complete or not at all."""
        results = {token: [vars(box) for box in _submitted(result)]
                   for token, result in found.items()}
        meta = {name: bool(self.modality.get(name, False)) for name in _MODALITIES}
        path = osp.join(self.jsonfile_prefix, 'pred_instances_3d', 'results_nusc.json')
        with atomic_write(path) as file:
            file.write(json.dumps(dict(meta=meta, results=results)).encode())
        print_log(f'NuScenesDetectionMetric: submission of {len(results)} frames in {path}',
                  'current')


def _submitted(result: Mapping) -> Iterable:
    """The boxes of a predicted frame, with their attributes."""
    for box, name, score in zip(result['boxes'], result['names'], result['scores']):
        yield devkit_box(result['token'], box, name, float(score),
                         attribute_of(name, float(np.hypot(*box[7:]))))
