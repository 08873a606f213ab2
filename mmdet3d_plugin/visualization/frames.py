"""One frame drawn: as the data loads it, and as models predict it."""
import os
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import Det3DDataSample
from mmengine.dataset import pseudo_collate

from ..errors import UserError, did_you_mean
from ..geometry import BEVGrid
from ..structures import fields
from .detections import SCORE_THRESHOLD, detection_panel, newest_views
from .draw import frame_panel
from .stages import original_panel, pipeline_panel, raw_views, transform_names

MODES = ('original', 'transformed', 'pipeline')


def draw_data(dataset, index: int, mode: str, title: str, width: int,
              grid: Optional[BEVGrid] = None) -> np.ndarray:
    """A frame of a data set, RGB.

    Args:
        dataset (BEVDataset): The data set.
        index: Of the frame.
        mode: One of ``MODES``: as on disk, as the model gets it, or at each transform.
        title: Of the image.
        width: px.
        grid: What is shown from above where no transform has a grid.
    """
    if mode == 'transformed':
        packed = dataset[index]
        sample, inputs = packed['data_samples'], packed['inputs']
        if fields.BEV_GRID not in sample.metainfo:  # without targets on a grid
            return detection_panel(sample, newest_views(sample, inputs),
                                   inputs.get(fields.POINTS), grid=grid, title=title, width=width)
        return frame_panel(packed['data_samples'], packed['inputs'], {}, title, width)
    frame, steps = dataset.get_data_info(index), dataset.pipeline.transforms
    grid = next((t.grid for t in steps if isinstance(getattr(t, 'grid', None), BEVGrid)), grid)
    if mode == 'pipeline':
        return pipeline_panel(frame, zip(transform_names(steps), steps), grid, title, width)
    points = None
    if os.path.isfile(frame.get('lidar_path', '')):
        scan = TRANSFORMS.build(dict(type='LoadPointCloud'))(dict(frame))
        points = scan['points'].tensor.numpy()
    return original_panel(frame, points, grid, title, width)


@torch.no_grad()
def draw_predictions(index: int, models: Mapping, width: int,
                     threshold: Union[float, Sequence[float]] = 0.5,
                     score_threshold: float = SCORE_THRESHOLD) -> Tuple[str, np.ndarray]:
    """One frame of the test data through all models; returns its name and the image, RGB.

    Args:
        index: Of the frame.
        models (dict[str, BEVInferencer]): By title; of a distiller with a teacher, every role.
        width: px.
        threshold: Of the probability of maps, one or one for each class.
        score_threshold: Of the scores of a detector's boxes.

    Raises:
        UserError: The models' test data or grids differ.
    """
    inputs, results, shown = {}, {}, None
    for name, model in models.items():
        packed = model.dataset[index]
        sample = packed['data_samples']
        for key, value in packed['inputs'].items():
            inputs.setdefault(key, value)
        if shown is None:
            shown = sample.clone()
        for key in ('token', 'bev_grid'):
            if sample.metainfo.get(key) != shown.metainfo.get(key):
                raise UserError(f'frame {index}: {key} of {name} is {sample.metainfo.get(key)}, of '
                                f'{next(iter(models))} {shown.metainfo.get(key)}; give configs of '
                                'the same test data and grid')
        extra = {k: v for k, v in sample.metainfo.items() if k not in shown.metainfo}
        shown.set_metainfo(extra)
        for role, result in _predicted(model, pseudo_collate([packed])).items():
            shared = len(models) > 1
            results[f'{name}, {role}' if role and shared else role or name] = result.cpu()
    token = shown.metainfo.get('token', str(index))
    model = next(iter(models.values()))
    views = newest_views(shown, inputs) or raw_views(model.dataset.get_data_info(index))
    return token, result_panel(shown, inputs, results, f'frame {index}: {token}', width, threshold,
                               score_threshold, views, model.model.grid)


def result_panel(sample: Det3DDataSample, inputs: Mapping, results: Mapping[str, Det3DDataSample],
                 title: str, width: int, threshold: Union[float, Sequence[float]] = 0.5,
                 score_threshold: float = SCORE_THRESHOLD, views: Sequence = (),
                 grid: Optional[BEVGrid] = None) -> np.ndarray:
    """A frame with predictions of any task: maps, instances of maps, and boxes of detectors.

    Args:
        sample: Packed, with the ground truth where there is one.
        inputs: Packed inputs, which are drawn where present.
        results: Name -> predicted sample.
        title: Of the image.
        width: px.
        threshold: Of the probability of maps.
        score_threshold: Of the scores of a detector's boxes.
        views: Cameras and images in which a detector's boxes are drawn.
        grid: What is shown of these from above.
    """
    maps = {name: found.pred_bev.seg.numpy() for name, found in results.items()
            if 'pred_bev' in found}
    instances = {name: found for name, found in results.items()
                 if 'instances' in found.get('pred_bev', ())}
    boxes: Dict[str, Det3DDataSample] = {
        name: found for name, found in results.items()
        if 'pred_instances_3d' in found and name not in instances}
    panels = []
    if maps:
        panels.append(frame_panel(sample, inputs, maps, title, width, instances, threshold))
    if boxes:
        points = inputs[fields.POINTS].numpy() if fields.POINTS in inputs else None
        panels.append(detection_panel(sample, views, points, boxes, grid, '' if maps else title,
                                      width, score_threshold))
    return np.concatenate(panels)


def _predicted(model, batch) -> Dict[str, Det3DDataSample]:
    """The result, or of a distiller whose teacher is loaded that of each role."""
    if _has_roles(model):
        return {role: found for role, [found] in model.model.predict_roles(batch).items()}
    return {'': model.model.test_step(batch)[0]}


def _has_roles(model):
    """Whether the model is a distiller whose teacher is loaded."""
    teachers = getattr(model.model, 'teachers', {}).values()
    return any(teacher.model is not None for teacher in teachers)


def short_names(stems: Sequence[str]) -> List[str]:
    """Config names without the beginning and end that they share."""
    if len(set(stems)) < 2:
        return stems
    words = [stem.split('_') for stem in stems]
    while len({w[0] for w in words}) == 1 and min(map(len, words)) > 1:
        words = [w[1:] for w in words]
    while len({w[-1] for w in words}) == 1 and min(map(len, words)) > 1:
        words = [w[:-1] for w in words]
    return ['_'.join(w) for w in words]


def parse_thresholds(words: Sequence[str], classes: Sequence[str]) -> List[float]:
    """The thresholds that ``--threshold`` says: one number, or one for each class.

    Raises:
        UserError: A word is no number and names no class, or there are too many.
    """
    named = dict(word.split('=', 1) for word in words if '=' in word)
    plain = [_probability(word) for word in words if '=' not in word] or [0.5]
    for name in named:
        if name not in classes:
            raise UserError(f'--threshold {name}: no such class{did_you_mean(name, classes)}')
    if len(plain) not in {1, len(classes)}:
        raise UserError(f'--threshold: {len(plain)} numbers for {len(classes)} classes; give one, '
                        'or one for each')
    if not named:
        return plain
    limits = dict(zip(classes, plain * (len(classes) if len(plain) == 1 else 1)))
    return list({**limits, **{name: _probability(p) for name, p in named.items()}}.values())


def _probability(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise UserError(f'--threshold {word}: expected a number, CLASS=NUMBER, or a RESULT.json '
                        'alone') from None


def best_thresholds(result: Mapping[str, float], classes: Sequence[str],
                    path: Union[str, Path]) -> List[float]:
    """The threshold of each class whose IoU is the highest in a result of ``MapIoUMetric``.

    Args:
        result: The metrics.
        classes: Names, in order.
        path: The result's file, for the error.

    Raises:
        UserError: A class has no IoU by threshold.
    """
    best = []
    for name in classes:
        found = {key.rpartition('_')[2]: value for key, value in result.items()
                 if key.rpartition('_')[0] == f'map/{name}'}
        if not found:
            raise UserError(f'--threshold {path}: it has no IoU of {name} by threshold, such as '
                            f'map/{name}_0.50; give the .json that tools/test.py wrote')
        best.append(float(max(found, key=found.get)))
    return best
