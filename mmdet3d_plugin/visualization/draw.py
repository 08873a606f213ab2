"""Drawing on panoramas, LiDAR images and BEV maps; every image is (H, W, 3) uint8 RGB."""
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch

from ..checkpoints import atomic_write
from ..errors import UserError
from ..geometry import BEVGrid, CameraRig, rigid

HIT, FALSE_ALARM, MISS = (60, 180, 75), (230, 70, 60), (70, 120, 230)
GROUND, TRUTH, INK, PAPER = (236, 236, 232), (60, 60, 60), (30, 30, 30), (255, 255, 255)
BOX = (255, 220, 0)
LEGEND = (('hit', HIT), ('false alarm', FALSE_ALARM), ('miss', MISS))
_MAP_COLOURS = ((166, 206, 227), (251, 154, 153), (178, 223, 138), (227, 26, 28), (255, 190, 110),
                (106, 61, 154))
_EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6),
          (3, 7)]
_FACE = [(0, 5), (1, 4)]  # a cross on the front


def save_image(path: Union[str, Path], image: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB image, whole or not at all; its folder is made if need be.

    Raises:
        UserError: It cannot be written there.
    """
    path = Path(path)
    done, encoded = cv2.imencode(path.suffix, image[..., ::-1])
    if not done:
        raise UserError(f'{path}: cannot encode an image of shape {image.shape}')
    with atomic_write(path) as file:
        file.write(encoded.tobytes())


def draw_points(image: np.ndarray, camera: dict, points, max_range: float = 50.0,
                radius: int = 1) -> np.ndarray:
    """Draw a scan into a copy of an image, coloured by range (red near, blue far).

    Args:
        image: (H, W, 3) uint8 RGB.
        camera: camera dict of the image.
        points: (P, >=3), LiDAR frame.
        max_range: metres at the blue end.
        radius: of a dot, px.
    """
    out = image.copy()
    pixel, depth, valid = _project(camera, np.asarray(points)[:, :3])
    colour = _colour(1 - depth / max_range, cv2.COLORMAP_JET)
    for n in np.argsort(-depth):
        if valid[n]:
            cv2.circle(out, tuple(np.round(pixel[n]).astype(int).tolist()), radius,
                       colour[n].tolist(), -1)
    return out


def draw_boxes(image: np.ndarray, camera: dict, boxes, colour=BOX,
               thickness: int = 1, fronts: bool = True) -> np.ndarray:
    """Draw the edges of boxes into a copy of an image, with a cross on their fronts.

    Edges are bent as the lens bends them, and are cut at the border of a panorama.

    Args:
        image: (H, W, 3) uint8 RGB.
        camera: camera dict of the image.
        boxes: (N, >=7) gravity centres, LiDAR frame.
        colour: RGB, or one (N, 3) for each box.
        thickness: of the lines, px.
        fronts: False for boxes whose front is not known.
    """
    corners = rigid.box_corners(boxes)
    lines = corners[:, _EDGES + _FACE if fronts else _EDGES]
    colours = np.broadcast_to(np.asarray(colour), (len(corners), 3))
    return draw_lines(image, camera, lines.reshape(-1, 2, 3),
                      colours.repeat(lines.shape[1], 0), thickness)


def draw_lines(image: np.ndarray, camera: dict, lines, colours, thickness: int = 1) -> np.ndarray:
    """Draw straight lines of space into a copy of an image, bent as the lens bends them.

    Args:
        image: (H, W, 3) uint8 RGB.
        camera: camera dict of the image.
        lines: (L, 2, 3) ends, LiDAR frame.
        colours: (L, 3) RGB.
        thickness: px.
    """
    out, share = image.copy(), np.linspace(0, 1, 17)[:, None]
    points = lines[:, :1] * (1 - share) + lines[:, 1:] * share
    pixels, _, valid = _project(camera, points.reshape(-1, 3), bounds=False)
    pixels, valid = pixels.reshape(*points.shape[:2], 2), valid.reshape(points.shape[:2])
    limit = image.shape[1] / 2 if camera['lens'] == 'equirect' else 4 * image.shape[1]
    steps = np.abs(np.diff(pixels, axis=1)).max(-1) < limit
    for n, k in np.argwhere(steps & valid[:, :-1] & valid[:, 1:]):
        p, q = np.round(pixels[n, k:k + 2] * 8).astype(int).tolist()
        cv2.line(out, p, q, np.asarray(colours)[n].tolist(), thickness, cv2.LINE_AA, 3)
    return out


def draw_lidar_image(lidar_img, height: Optional[int] = None) -> np.ndarray:
    """The channels of a LiDAR image below each other, coloured.

    Args:
        lidar_img: (C, h, w) in [0, 1].
        height: of each strip, px; default h.
    """
    strips = [_colour(np.asarray(channel), cv2.COLORMAP_TURBO if n == 0 else cv2.COLORMAP_VIRIDIS)
              for n, channel in enumerate(lidar_img)]
    if height:
        strips = [cv2.resize(s, (s.shape[1], height), interpolation=cv2.INTER_NEAREST)
                  for s in strips]
    return np.concatenate(strips)


def instance_colours(ids) -> np.ndarray:
    """(...,) int numbers of instances -> (..., 3) uint8 RGB; neighbouring numbers differ most."""
    hue = np.asarray(ids)[..., None] * 0.618034 + np.arange(3) / 3
    return (140 + 95 * np.cos(2 * np.pi * hue)).astype(np.uint8)


def draw_bev(grid: BEVGrid, truth=None, pred=None, points=None, boxes=None, size: int = 480,
                threshold: float = 0.5, rings: Sequence[float] = (10, 25, 50),
                instances=None, lines=None, colours=None) -> np.ndarray:
    """A BEV map seen from above, ahead up and left left, whatever the grid's orientation.

    With prediction and truth, cells are hits, false alarms or misses; with one of them, dark.
    Instances have a colour each. The triangle is the vehicle; rings are at ``rings`` metres.

    Args:
        grid: of the maps.
        truth, pred: (R, C) or (K, R, C) in [0, 1]; channels are joined.
        points: (P, >=2), LiDAR frame, drawn grey.
        boxes: (N, 7), LiDAR frame, drawn as outlines.
        size: of the longer side of the image, px.
        threshold: cells of `pred` of at least it are positive.
        rings: radii, metres.
        instances: (K, R, C) int, 0 = none.
        lines: (L, 2, >=2) ends of straight lines, LiDAR frame.
        colours: (L, 3) RGB of the lines.
    """
    view = grid.top_down()
    scale = size / max(view.shape)
    out = np.full((*view.shape, 3), GROUND, np.uint8)
    truth = truth if truth is None else _top_down(truth, grid, view) > 0.5
    pred = pred if pred is None else _top_down(pred, grid, view) >= threshold
    if truth is not None and pred is not None:
        out[truth & pred], out[pred & ~truth], out[truth & ~pred] = HIT, FALSE_ALARM, MISS
    elif truth is not None or pred is not None:
        out[truth if pred is None else pred] = TRUTH
    if instances is not None:
        ids = _top_down(instances, grid, view)
        out[ids > 0] = instance_colours(ids[ids > 0])
    out = _enlarged(out, size)

    def at(xy):
        return np.round(view.to_pixel(np.asarray(xy, np.float64))[..., ::-1] * scale).astype(int)

    if points is not None:
        u, v = at(np.asarray(points)[:, :2]).T
        inside = (u >= 0) & (v >= 0) & (u < out.shape[1]) & (v < out.shape[0])
        out[v[inside], u[inside]] = (out[v[inside], u[inside]] * 0.5).astype(np.uint8)
    centre = at([0, 0]).tolist()
    for ring in rings:
        radius = round(ring / grid.resolution * scale)
        cv2.circle(out, centre, radius, (190, 190, 186), 1, cv2.LINE_AA)
    if boxes is not None and len(boxes):
        outlines = at(rigid.box_corners(boxes)[:, :4, :2])
        cv2.polylines(out, [o.reshape(-1, 1, 2) for o in outlines], True, INK, 1, cv2.LINE_AA)
    if lines is not None:
        for (start, end), colour in zip(at(np.asarray(lines)[..., :2]).tolist(), colours):
            cv2.line(out, start, end, np.asarray(colour).tolist(), 1, cv2.LINE_AA)
    _draw_car(out, view, scale)
    return out


def draw_map(grid: BEVGrid, seg, size: int = 480, threshold=0.5) -> np.ndarray:
    """Overlapping classes of a map in colours, later channels on top; like :func:`draw_bev`.

    Args:
        grid: of the map.
        seg: (K, R, C) in [0, 1].
        size: of the longer side of the image, px.
        threshold: cells of at least it are in the class; one number, or one for each class.
    """
    view = grid.top_down()
    out = np.full((*view.shape, 3), GROUND, np.uint8)
    for channel, limit, colour in zip(seg, _limits(threshold, seg), map_colours(len(seg))):
        out[_top_down(channel, grid, view) >= limit] = colour
    out = _enlarged(out, size)
    _draw_car(out, view, size / max(view.shape))
    return out


def _limits(threshold, seg) -> np.ndarray:
    """(K,), in the precision of the probabilities, which decides where both are equal."""
    return np.broadcast_to(np.asarray(threshold, np.asarray(seg).dtype), len(seg))


def map_colours(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB of the classes of a map, drivable area first."""
    known = np.array(_MAP_COLOURS, np.uint8)
    more = instance_colours(np.arange(max(count - len(known), 0)))
    return np.concatenate([known, more])[:count]


def map_legend(names: Sequence[str], width: int = 1440, threshold=None,
               colours=None) -> np.ndarray:
    """A strip with the colour, the name and, where given, the threshold of each class."""
    colours = map_colours(len(names)) if colours is None else colours
    strip = np.full((24, width, 3), PAPER, np.uint8)
    if threshold is not None:
        limits = np.broadcast_to(threshold, len(names))
        names = [f'{name} >= {limit:g}' for name, limit in zip(names, limits)]
    sides = [20 + cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0] for name in names]
    gap, x = (width - 8 - sum(sides)) // max(len(names), 1), 8
    for name, side, colour in zip(names, sides, colours):
        cv2.rectangle(strip, (x, 5), (x + 14, 19), colour.tolist(), -1)
        cv2.putText(strip, name, (x + 20, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
        x += side + gap
    return strip


def _enlarged(cells, size) -> np.ndarray:
    rows, cols = (round(side * size / max(cells.shape[:2])) for side in cells.shape[:2])
    return cv2.resize(cells, (cols, rows), interpolation=cv2.INTER_NEAREST)


def _draw_car(image, view: BEVGrid, scale) -> None:
    arrow = np.array([[0, -2.4], [1.4, 2], [0, 1], [-1.4, 2]]) / view.resolution  # as long as a car
    origin = view.to_pixel(np.zeros(2))[::-1]
    corners = np.round((origin + arrow) * scale).astype(int)
    cv2.fillPoly(image, [corners], INK, cv2.LINE_AA)


def draw_heatmap(grid: BEVGrid, bev_map, size: int = 480) -> np.ndarray:
    """A map of values in [0, 1], coloured, seen from above like :func:`draw_bev`.

    Args:
        grid: of the map.
        bev_map: (R, C) or (K, R, C); the largest value of a cell is shown.
        size: of the longer side of the image, px.
    """
    values = _top_down(bev_map, grid, grid.top_down())
    return _enlarged(_colour(values, cv2.COLORMAP_VIRIDIS), size)


def draw_targets(grid: BEVGrid, gt_bev: Mapping,
                    names: Optional[Sequence[str]] = None) -> Dict[str, np.ndarray]:
    """Targets that :func:`draw_bev` does not show: centerness, and channels if there are more.

    Args:
        grid: of the maps.
        gt_bev: ``seg`` (K, R, C), and ``centerness`` (1, R, C) where there is one.
        names: of the channels; default their numbers.
    """
    found = dict(centerness=gt_bev['centerness']) if 'centerness' in gt_bev else {}
    if len(gt_bev['seg']) > 1:
        names = names or [f'channel {n}' for n in range(len(gt_bev['seg']))]
        found.update(zip(names, gt_bev['seg']))
    return {name: draw_heatmap(grid, np.asarray(values)) for name, values in found.items()}


def panel(rows: Sequence[Tuple[str, Sequence[Tuple[str, np.ndarray]]]], width: int = 1440,
          gap: int = 8, title: str = '') -> np.ndarray:
    """Compose titled rows of images.

    Args:
        rows: (title of the row, [(title of the image, image), ...]); the images of a row are
            scaled to one height and fill the width; a lone square one takes half of it. A row
            without images is a title.
        width: of the panel, px.
        gap: between images, px.
        title: of the panel, instead of the first row's.
    """
    if title and rows:
        rows = [(title, rows[0][1]), *rows[1:]]
    strips: List[np.ndarray] = []
    for title, images in rows:
        if title:
            strips.append(_text_strip(title, width, 26, 0.6))
        if not images:
            continue
        aspects = [p.shape[1] / p.shape[0] for _, p in images]
        height = (width - gap * (len(images) + 1)) / max(sum(aspects), 2)
        line = [np.full((round(height) + 22, gap, 3), PAPER, np.uint8)]
        for (name, image), aspect in zip(images, aspects):
            size = max(1, round(height * aspect)), max(1, round(height))
            mode = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_NEAREST
            scaled = cv2.resize(image, size, interpolation=mode)
            strip = np.concatenate([_text_strip(name, size[0], 22, 0.45), scaled])
            line += [strip, np.full((len(strip), gap, 3), PAPER, np.uint8)]
        joined = np.concatenate(line, 1)[:, :width]
        strips.append(np.pad(joined, ((0, gap), (0, width - joined.shape[1]), (0, 0)),
                             constant_values=255))
    return np.concatenate(strips)


def frame_panel(sample, inputs: Dict[str, torch.Tensor], predictions: Dict[str, np.ndarray],
                title: str = '', width: int = 1440, instances: Optional[dict] = None,
                threshold=0.5) -> np.ndarray:
    """Everything about one frame: panorama with its boxes, LiDAR image, and each prediction.

    Without predictions, all maps of the ground truth are drawn.

    Predicted instances are drawn in their colours with their boxes, from above and in the panorama.

    Args:
        sample: packed ``Det3DDataSample``; maps and boxes are drawn where it has them.
        inputs: packed inputs; ``img`` and ``lidar_img`` are drawn where present.
        predictions: name -> (K, R, C) probabilities.
        title: of the panel.
        width: px.
        instances: name -> predicted sample with ``pred_bev.instances`` and ``pred_instances_3d``.
        threshold: of the classes of a map, one number or one for each.
    """
    meta, rows, instances = sample.metainfo, [], instances or {}
    grid = BEVGrid(**meta['bev_grid']) if 'bev_grid' in meta else None
    boxes = _boxes(sample.gt_instances_3d) if 'gt_instances_3d' in sample else np.zeros((0, 7))
    if 'img' in inputs:
        lidar = np.linalg.inv(meta.get('bev_aug', np.eye(4)))
        seen = {camera['name']: (camera, image)
                for camera, image in zip(meta['cameras'], inputs['img'])}
        order = by_direction({name: camera['lidar2cam'] for name, (camera, _) in seen.items()},
                             grid)
        drawn = {'boxes': (boxes, BOX, True), **{
            f'instances of {name}': (_boxes(found.pred_instances_3d), _tints(found), False)
            for name, found in instances.items()}}
        for row in order:
            for what, (found, colour, fronts) in drawn.items():
                rows.append(('', [_view(*seen[name], width // max(map(len, order)), what,
                                        rigid.transform_boxes(lidar, found), colour, fronts)
                                  for name in row]))
    if 'lidar_img' in inputs:
        rows.append(('', [('LiDAR image', draw_lidar_image(inputs['lidar_img'].numpy()))]))
    if grid is not None:
        truth = sample.gt_bev.seg.numpy() if 'gt_bev' in sample else None
        points = inputs['points'].numpy() if 'points' in inputs else None
        if 'map_classes' in meta:
            return panel(rows + _map_rows(grid, meta['map_classes'], truth, predictions, points,
                                          boxes, width, threshold), width, title=title)
        maps = [('ground truth', draw_bev(grid, truth, None, points, boxes))]
        maps += [(f'{name}{_iou(truth, seg)}', draw_bev(grid, truth, seg))
                 for name, seg in predictions.items()]
        if truth is not None and not predictions:
            maps += draw_targets(grid, dict(sample.gt_bev.items())).items()
        legend = f'   ({", ".join(f"{_NAMES[c]} {n}" for n, c in LEGEND)})' if predictions else ''
        row = len(maps) if predictions else 4
        rows.append((f'bird\'s-eye view{legend}', maps[:row]))
        rows += [('', maps[n:n + row]) for n in range(row, len(maps), row)]
        if instances:
            numbers = sample.gt_bev.instances if 'instances' in sample.get('gt_bev', ()) else None
            rows.append(('instances', [
                ('ground truth', draw_bev(grid, boxes=boxes, instances=numbers)),
                *((name, draw_bev(grid, boxes=_boxes(found.pred_instances_3d),
                                     instances=found.pred_bev.instances))
                  for name, found in instances.items())]))
    return panel(rows, width, title=title)


def _view(camera, image, width, what, boxes, colour, fronts):
    """Caption and image of a camera with boxes."""
    image, shown = scaled_view(image.permute(1, 2, 0).numpy(), camera, width)
    inside = count_in_image(shown, boxes)
    return (f'{camera["name"]}, {_of(inside, len(boxes))} {what}',
            draw_boxes(image, shown, boxes, colour, fronts=fronts))


def _of(shown: int, total: int) -> str:
    """How many of a frame a drawing shows."""
    return str(shown) if shown == total else f'{shown} of {total}'


def count_in_image(camera: dict, boxes) -> int:
    """Number of boxes of which an edge is in the image, at least in part.

    Args:
        camera: camera dict of the image.
        boxes: (N, >=7) gravity centres, LiDAR frame.
    """
    edges = _edge_points(boxes)
    valid = _project(camera, edges.reshape(-1, 3))[2]
    return int(valid.reshape(edges.shape[:2]).any(1).sum())


def count_on_map(grid: BEVGrid, boxes) -> int:
    """Number of boxes of which an edge is on the map, at least in part.

    Args:
        grid: of the map.
        boxes: (N, >=7), LiDAR frame.
    """
    inside = grid.to_index(torch.from_numpy(_edge_points(boxes)[..., :2]))[1]
    return int(inside.any(1).sum())


def _edge_points(boxes) -> np.ndarray:
    """(N, P, 3) points along the edges of boxes."""
    corners = rigid.box_corners(np.asarray(boxes, np.float64)[:, :7].reshape(-1, 7))
    first, last = corners[:, np.array(_EDGES).T].swapaxes(0, 1)
    share = np.linspace(0, 1, 17)[:, None]
    points = first[:, :, None] * (1 - share) + last[:, :, None] * share
    return points.reshape(len(corners), len(_EDGES) * len(share), 3)


def by_direction(lidar2cam: Mapping[str, np.ndarray],
                 grid: Optional[BEVGrid] = None) -> List[List[str]]:
    """Names of cameras in rows; more than two: those that look ahead, and those that look back.

    Both rows go from the left to the right of the car, as in nuScenes: front left, front, front
    right above back left, back, back right.

    Args:
        lidar2cam: 4x4 by name, of pinholes.
        grid: whose ``forward_axis`` is the car's; default +x.
    """
    if len(lidar2cam) <= 2:
        return [list(lidar2cam)] if lidar2cam else []
    ahead = dict(x=(1, 0), y=(0, 1))[grid.forward_axis[1] if grid else 'x']
    ahead = np.array(ahead) * (-1 if grid and grid.forward_axis[0] == '-' else 1)
    rows: List[List[tuple]] = [[], []]
    for name, matrix in lidar2cam.items():
        seen = np.asarray(matrix)[2, :2]
        along, left = seen @ ahead, seen @ (-ahead[1], ahead[0])
        rows[int(along < 0)].append((np.arctan2(-left, abs(along)), name))
    return [[name for _, name in sorted(row)] for row in rows if row]


def _map_rows(grid, classes, truth, predictions, points, boxes, width, threshold):
    """Rows of the images of a map: all classes together, and the scan with the boxes."""
    maps = [] if truth is None else [('ground truth', draw_map(grid, truth))]
    maps += [(f'{name}{_class_iou(truth, seg, threshold)}',
              draw_map(grid, seg, threshold=threshold)) for name, seg in predictions.items()]
    if points is not None:
        caption = f'scan, {_of(count_on_map(grid, boxes), len(boxes))} boxes'
        maps.append((caption, draw_bev(grid, points=points, boxes=boxes)))
    row = len(maps) if len(maps) <= 5 else 4
    return [("bird's-eye view", maps[:row]),
            *(('', maps[n:n + row]) for n in range(row, len(maps), row)),
            ('', [('', map_legend(classes, width - 16, threshold if predictions else None))])]


def _class_iou(truth, seg, threshold) -> str:
    """Mean over the classes that are there."""
    if truth is None:
        return ''
    pred = np.asarray(seg) >= _limits(threshold, seg)[:, None, None]
    truth = truth > 0.5
    union = (truth | pred).sum((1, 2))
    iou = (truth & pred).sum((1, 2))[union > 0] / union[union > 0]
    return f', mean IoU {100 * iou.mean():.0f} % here' if len(iou) else ''


_NAMES = {HIT: 'green', FALSE_ALARM: 'red', MISS: 'blue'}


def _boxes(instances) -> np.ndarray:
    """(N, 7) gravity-centre boxes of an ``InstanceData``."""
    boxes = instances.bboxes_3d
    return torch.cat([boxes.gravity_center, boxes.tensor[:, 3:7]], 1).numpy()


def _tints(found) -> np.ndarray:
    """(N, 3) colours of the boxes of a predicted sample, which are in the order of the numbers."""
    ids = np.unique(found.pred_bev.instances)
    return instance_colours(ids[ids > 0])


def scaled_view(image, camera, width: int, elevation_deg=(30, -40)) -> Tuple[np.ndarray, dict]:
    """An image scaled to a width, and cut to what lies near the horizon if it is a panorama."""
    height = round(image.shape[0] * width / image.shape[1])
    scale_x, scale_y = width / image.shape[1], height / image.shape[0]
    image = cv2.resize(np.ascontiguousarray(image), (width, height),
                         interpolation=cv2.INTER_CUBIC if scale_x > 1 else cv2.INTER_AREA)
    top, bottom = 0, height
    if camera['lens'] == 'equirect':
        up, down = camera['fov_up'], camera['fov_down']
        top, bottom = (int(np.clip((up - np.deg2rad(e)) / (up - down), 0, 1) * height)
                       for e in elevation_deg)
    move = np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2 - top],
                     [0, 0, 1]])
    raw = {f'raw_{side}': camera.get(f'raw_{side}', camera[side]) for side in ('height', 'width')}
    camera = dict(camera, **raw, height=bottom - top, width=width,
                  img_aug=move @ camera.get('img_aug', np.eye(3)))
    return image[top:bottom], camera


def _iou(truth, seg) -> str:
    if truth is None:
        return ''
    truth, seg = truth > 0.5, np.asarray(seg) >= 0.5
    return f', IoU {100 * (truth & seg).sum() / max((truth | seg).sum(), 1):.0f} % here'


def _project(camera, points, bounds=True):
    rig = CameraRig.from_dicts([[camera]])
    pixel, depth, valid = rig.project(torch.as_tensor(np.asarray(points), dtype=torch.float32),
                                      bounds=bounds)
    return pixel[0, 0].numpy(), depth[0, 0].numpy(), valid[0, 0].numpy()


def _colour(values, colour_map) -> np.ndarray:
    """(..., ) in [0, 1] -> (..., 3) uint8 RGB."""
    values = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    flat = cv2.applyColorMap(values.reshape(-1, 1), colour_map)[:, 0, ::-1]
    return flat.reshape(*values.shape, 3)


def _top_down(bev_map, grid, view):
    """(R, C) or (K, R, C) in the grid's orientation -> (R', C') in the view's, channels joined."""
    bev_map = np.asarray(bev_map)
    joined = bev_map.reshape(-1, *bev_map.shape[-2:]).max(0)
    rows, cols = cells_top_down(grid, view)
    return joined[rows, cols]


def cells_top_down(grid: BEVGrid, view: Optional[BEVGrid] = None) -> np.ndarray:
    """(2, R', C') int: row and column of a map's cell at each cell of its view from above."""
    view = view or grid.top_down()
    pixel = np.floor(grid.to_pixel(view.centers_2d().numpy())).astype(int)
    return np.moveaxis(pixel, -1, 0)


def _text_strip(text: str, width: int, height: int, size: float) -> np.ndarray:
    strip = np.full((height, width, 3), PAPER, np.uint8)
    cv2.putText(strip, text, (4, height - 7), cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)
    return strip
