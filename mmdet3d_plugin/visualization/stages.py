"""A frame on its way through a pipeline: as on disk, and around each transform."""
import contextlib
import textwrap
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch

from ..errors import FrameError
from ..geometry import BEVGrid, rigid
from ..geometry.cameras import LENSES
from ..structures import fields, read_image
from .draw import (
    by_direction,
    draw_bev,
    draw_boxes,
    draw_lidar_image,
    draw_map,
    draw_targets,
    panel,
)

Named = Dict[str, np.ndarray]


def original_panel(frame: Mapping, points=None, grid: Optional[BEVGrid] = None, title: str = '',
                   width: int = 1440) -> np.ndarray:
    """The files of a frame: its images with boxes where the lens is known, and its scan.

    Args:
        frame: as it enters the pipeline.
        points: (P, >=3) of its scan, LiDAR frame; None = no scan.
        grid: what of the scan is shown.
        title: of the panel.
        width: px.
    """
    rows = [('', [(name, _with_boxes(image, frame['images'][name], raw_boxes(frame)))
                  for name, image in row])
            for row in _in_rows(load_images(frame), frame, grid)]
    if points is not None:
        grid = grid or BEVGrid()
        near = BEVGrid((-20, 20), (-20, 20), 0.25, grid.rows, grid.cols,
                       forward_axis=grid.forward_axis)
        shown = int(grid.to_index(torch.as_tensor(points)[:, :2])[1].sum())
        rows.append(('', [(name, draw_bev(view, points=points, boxes=raw_boxes(frame), size=960))
                          for name, view in ((f'scan, {shown} of {len(points)} points', grid),
                                             ('20 m around the vehicle', near))]))
    return panel([(title, []), *rows] if title else rows, width)


def transform_names(transforms: Iterable) -> List[str]:
    """The class of each transform, with those it wraps, and a number where it stands twice."""
    names: List[str] = []
    for transform in transforms:
        name = type(transform).__name__
        inner = [type(t).__name__ for t in getattr(transform, 'transforms', ())]
        name += f'({", ".join(inner)})' if inner else ''
        count = sum(n.split(' #')[0] == name for n in names)
        names.append(f'{name} #{count + 1}' if count else name)
    return names


def pipeline_panel(frame: dict, steps: Iterable[Tuple[str, Callable[[dict], dict]]],
                   grid: Optional[BEVGrid] = None, title: str = '', width: int = 1440
                   ) -> np.ndarray:
    """What each transform changes, before and after; wide images one above the other.

    Args:
        frame: as it enters the pipeline.
        steps: name and transform, in order; they are called.
        grid: of views from above, before the pipeline says its own.
        title: of the panel.
        width: px.
    """
    rows: List[Tuple[str, Sequence[Tuple[str, np.ndarray]]]] = [(title, [])] if title else []
    before, known = images_of(frame, grid), _described(frame)
    for number, (name, step) in enumerate(steps, 1):
        frame = step(frame)
        after, entries = images_of(frame, grid), _described(frame)
        new = [text for key, text in entries.items() if known.get(key) != text]
        text = f'{number}  {name}:  {",  ".join(new) or "no new entries"}'
        rows += [(line, []) for line in textwrap.wrap(text, width // 11)]
        for key, image in after.items():
            old = before.get(key)
            if old is None and rows[-1][1] and rows[-1][1][0][0].endswith(', new'):
                rows[-1][1].append((f'{key}, new', image))
            elif old is None:
                rows.append(('', [(f'{key}, new', image)]))
            elif not np.array_equal(old, image):
                pair = [(f'{key}, before', old), (f'{key}, after', image)]
                wide = sum(p.shape[1] / p.shape[0] for _, p in pair) > 6
                rows += [('', [one]) for one in pair] if wide else [('', pair)]
        before, known = after, entries
    return panel(rows, width)


def images_of(results: Mapping, grid: Optional[BEVGrid] = None) -> Named:
    """What can be seen of a frame at any point of a pipeline, packed or not.

    Returns:
        dict: name -> (H, W, 3) uint8 RGB; ``images`` are those on disk until they are loaded.
    """
    state = _unpacked(results)
    boxes, shown = raw_boxes(state), {}
    moved = rigid.transform_boxes(state.get(fields.BEV_AUG, np.eye(4)), boxes)
    if fields.IMG in state:
        views = [_with_boxes(image, camera, boxes)
                 for image, camera in zip(state[fields.IMG], state[fields.CAMERAS])]
    else:
        views = [image for row in _in_rows(load_images(state), state, grid)
                 for _, image in row]
    if views:
        height = min(v.shape[0] for v in views)
        shown['images'] = np.concatenate([cv2.resize(
            v, (round(v.shape[1] * height / v.shape[0]), height), interpolation=cv2.INTER_AREA)
            for v in views], 1)
    if fields.LIDAR_IMG in state:
        shown['LiDAR image'] = draw_lidar_image(np.asarray(state[fields.LIDAR_IMG]))
    if fields.BEV_GRID in state:
        grid = BEVGrid(**state[fields.BEV_GRID])
    truth, classes = state.get(fields.GT_BEV), state.get(fields.MAP_CLASSES)
    seg = None if truth is None else np.asarray(truth[fields.SEG])
    if fields.POINTS in state or (truth is not None and not classes):
        points = state.get(fields.POINTS)
        shown['from above'] = draw_bev(
            grid or BEVGrid(), None if classes else seg,
            points=None if points is None else np.asarray(getattr(points, 'tensor', points)),
            boxes=moved)
    if truth is not None:
        shown.update({'map': draw_map(grid, seg)} if classes else {})
        shown.update(draw_targets(grid, truth, classes))
    return shown


def load_images(frame: Mapping) -> Named:
    """The images of a frame as on disk, by camera; those that cannot be read are left out."""
    read = {}
    for name, camera in frame.get('images', {}).items():
        with contextlib.suppress(FrameError):
            if 'img_path' in camera:
                read[name] = np.ascontiguousarray(read_image(camera['img_path'])[..., ::-1])
    return read


def raw_views(frame: Mapping) -> List[Tuple[dict, np.ndarray]]:
    """Camera dict, with its name, and image on disk of each camera whose lens is known."""
    return [(dict(frame['images'][name], name=name), image)
            for name, image in load_images(frame).items() if _is_lens(frame['images'][name])]


def raw_boxes(results: Mapping) -> np.ndarray:
    """(N, 7) gravity-centre boxes of a frame in the raw LiDAR frame."""
    annotations = results.get('ann_info', results.get('eval_ann_info'))
    if annotations is None:
        return np.zeros((0, 7))
    boxes = annotations['gt_bboxes_3d']
    return torch.cat([boxes.gravity_center, boxes.tensor[:, 3:7]], 1).numpy()


def _with_boxes(image, camera, boxes):
    """The image with boxes, if it is what the camera's lens makes."""
    if not _is_lens(camera):
        return image
    thickness = max(1, round(image.shape[1] / 800))
    return draw_boxes(image, camera, boxes, thickness=thickness)


def _is_lens(camera: Mapping) -> bool:
    """Whether the image on disk is what the camera's lens makes."""
    return 'source_lens' not in camera and camera.get('lens') in LENSES


def _in_rows(images: Named, frame, grid) -> List[List[Tuple[str, np.ndarray]]]:
    """Rows of named images; see :func:`by_direction`."""
    rows = by_direction({name: frame['images'][name]['lidar2cam'] for name in images}, grid)
    return [[(name, images[name]) for name in row] for row in rows]


def _unpacked(results: Mapping) -> Mapping[str, Any]:
    """Entries of a frame under the names that they have before packing."""
    if 'data_samples' not in results:
        return results
    sample, inputs = results['data_samples'], results['inputs']
    state = {**sample.metainfo, **inputs}
    if fields.IMG in inputs:
        images = inputs[fields.IMG].flatten(0, -4)  # of all times
        state[fields.IMG] = [np.ascontiguousarray(p.permute(1, 2, 0)) for p in images]
    if fields.GT_BEV in sample:
        state[fields.GT_BEV] = dict(sample.gt_bev.items())
    if 'gt_instances_3d' in sample:
        boxes = sample.gt_instances_3d.bboxes_3d
        undo = np.linalg.inv(state.get(fields.BEV_AUG, np.eye(4)))
        values = torch.cat([boxes.gravity_center, boxes.tensor[:, 3:7]], 1).numpy()
        state['ann_info'] = dict(gt_bboxes_3d=type(boxes)(
            torch.from_numpy(rigid.transform_boxes(undo, values)).float(), origin=(.5, .5, .5)))
    return state


def _described(results: Mapping) -> Dict[str, str]:
    """Key -> key with kind and size, of the entries that are data."""
    packed = {f'inputs.{k}': v for k, v in results.get('inputs', {}).items()}
    found = {}
    for key, value in {**results, **packed}.items():
        first = value[0] if isinstance(value, list) and value else value
        first = getattr(first, 'tensor', first)
        if isinstance(first, (np.ndarray, torch.Tensor)):
            size, count = 'x'.join(map(str, first.shape)), ''
            if isinstance(value, list):
                count = f'{len(value)} x '
            found[key] = f'{key} {count}{size} {str(first.dtype).removeprefix("torch.")}'
        elif key in (fields.CAMERAS, fields.LIDAR_CAMERA, fields.GT_BEV, fields.BEV_AUG,
                     'data_samples'):
            found[key] = key
    return found
