"""nuScenes' detection scores by the devkit's own algorithms, without its tables."""
from dataclasses import dataclass
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from ..geometry import rigid
from ..structures import lidar2global
from ..structures.info import number_of_points
from . import scores

ERRORS = dict(ATE='trans_err', ASE='scale_err', AOE='orient_err', AVE='vel_err', AAE='attr_err')
"""Name of an error -> the devkit's."""
UNDEFINED = dict(traffic_cone=('AOE', 'AVE', 'AAE'), barrier=('AVE', 'AAE'))
"""Errors that a class does not have."""
RACK = 'static_object.bicycle_rack'
_IN_RACKS = ('bicycle', 'motorcycle')


class Truth(NamedTuple):
    """Annotated objects of a frame, in the world (float64, metres, radians, seconds).

    Attributes:
        token (str): Of the frame.
        origin (ndarray): (2,) x and y of the vehicle.
        boxes (ndarray): (N, 9) gravity centre, length, width, height, yaw, vx, vy.
        names (list): Their classes.
        points (ndarray): (N,) LiDAR and radar points in each, -1 where unknown.
        attributes (list): Names, empty where there is none.
        racks (ndarray): (M, 9) bicycle racks.
        in_world (bool): False where the frame has no pose and is its own world.
    """
    token: str
    origin: np.ndarray
    boxes: np.ndarray
    names: List[str]
    points: np.ndarray
    attributes: List[str]
    racks: np.ndarray
    in_world: bool

    def outside(self, boxes: np.ndarray, names: Sequence[str],
                ranges: Mapping[str, float]) -> np.ndarray:
        """(N,) bool boxes that are not scored: too far away, or two-wheelers in a rack."""
        limits = np.array([ranges[name] for name in names])
        far = ~(np.linalg.norm(boxes[:, :2] - self.origin, axis=1) < limits)
        cycles = np.isin(names, _IN_RACKS) if len(names) else far
        return far | (cycles & rigid.points_in_boxes(boxes, self.racks).any(0))


@dataclass
class Box:
    """A box as the devkit's algorithms read it."""
    sample_token: str
    translation: Tuple[float, float, float]
    size: Tuple[float, float, float]
    rotation: Tuple[float, float, float, float]
    velocity: Tuple[float, float]
    detection_name: str
    detection_score: float = -1.0
    attribute_name: str = ''


def devkit_box(token: str, box: np.ndarray, name: str, *args) -> Box:
    """A (9,) box in the world, with the sizes and the quaternion of the devkit."""
    x, y, z, length, width, height, yaw, *velocity = map(float, box)
    rotation = float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))
    return Box(token, (x, y, z), (width, length, height), rotation, tuple(velocity), name, *args)


def world_boxes(boxes: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """(N, 9) boxes of a frame with a (4, 4) pose, in the world, where they stand upright."""
    return rigid.transform_boxes(pose, np.reshape(boxes, (-1, 9)), pose[2, :3])


def truth_of(frame: Mapping, categories: Mapping[int, str]) -> Truth:
    """Annotated objects of a frame of an info file, or of a data set.

    A frame without a pose is its own world.

    Args:
        frame: with ``instances``.
        categories: ``bbox_label_3d`` -> class; others are left out.
    """
    pose = lidar2global(frame)
    origin = np.zeros(2) if pose is None else np.array(frame['ego2global'], np.float64)[:2, 3]
    instances = frame['instances']
    boxes = world_boxes(np.array([[*i['bbox_3d'], *i.get('velocity', (np.nan, np.nan))]
                                  for i in instances], np.float64),
                        np.eye(4) if pose is None else pose)
    racks = boxes[[i.get('category') == RACK for i in instances]]
    known = np.array([i['bbox_label_3d'] in categories for i in instances], bool)
    instances = [instance for instance, use in zip(instances, known) if use]
    return Truth(frame['token'], origin, boxes[known],
                 [categories[i['bbox_label_3d']] for i in instances],
                 np.array([number_of_points(i) for i in instances], np.int64),
                 [i.get('attribute', '') for i in instances], racks.reshape(-1, 9),
                 pose is not None)


def class_scores(truth: Mapping[str, List[Box]], found: Mapping[str, List[Box]], name: str,
                 config, skip: bool = True) -> Dict[str, float]:
    """AP and errors of one class.

    Args:
        truth, found: frame -> boxes of the class.
        name: of the class.
        config: the devkit's ``DetectionConfig``.
        skip: what the ground truth does not have (the class, velocities, attributes) is NaN. False
            is the devkit: AP 0 and errors of 1.

    Returns:
        dict: ``AP``, ``AP_<distance>`` for each distance of a match, and ``ERRORS``.
    """
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp

    both = EvalBoxes(), EvalBoxes()
    for boxes, given in zip(both, (truth, found)):
        boxes.boxes.update(given)
    curves = {limit: accumulate(*both, name, config.dist_fcn_callable, limit)
              for limit in config.dist_ths}
    aps = {limit: calc_ap(curve, config.min_recall, config.min_precision)
           for limit, curve in curves.items()}
    out = dict(AP=float(np.mean(list(aps.values()))),
               **{f'AP_{limit:g}': ap for limit, ap in aps.items()})
    out |= {error: calc_tp(curves[config.dist_th_tp], config.min_recall, theirs)
            for error, theirs in ERRORS.items()}
    annotated = both[0].all
    missing = set(UNDEFINED.get(name, ()))
    if skip and not annotated:
        missing = set(out)
    elif skip:
        if all(np.isnan(box.velocity).any() for box in annotated):
            missing.add('AVE')
        if not any(box.attribute_name for box in annotated):
            missing.add('AAE')
    return out | dict.fromkeys(missing, float('nan'))


def summary(by_class: Mapping[str, Mapping[str, float]], config) -> Dict[str, float]:
    """``mAP``, ``NDS`` and the mean errors over the classes that have them.

    NDS is NaN where one of its parts is.
    """
    def mean(key):
        return scores.mean(np.array([values[key] for values in by_class.values()]))

    errors = {f'm{error}': mean(error) for error in ERRORS}
    parts = [np.fmax(0.0, 1 - e) if e == e else e for e in errors.values()]
    weight = config.mean_ap_weight
    total = (weight * mean('AP') + sum(parts)) / (weight + len(parts))
    return dict(mAP=mean('AP'), NDS=float(total), **errors)


def table(by_class: Mapping[str, Mapping[str, float]], means: Mapping[str, float]) -> str:
    """Scores as text: a line for each class and one for the means; ``-`` where there is none."""
    keys = ('AP', *ERRORS)
    rows = {**by_class, 'mean': {key: means[f'm{key}'] for key in keys}}
    width = max(map(len, rows))
    lines = [f'{"":{width}}' + ''.join(f'{key:>8}' for key in keys)]
    for name, values in rows.items():
        shown = (f'{values[key]:.3f}' if values[key] == values[key] else '-' for key in keys)
        lines.append(f'{name:{width}}' + ''.join(f'{text:>8}' for text in shown))
    return '\n'.join([*lines, f'NDS {means["NDS"]:.4f}'])
