"""3D boxes without torch are those of the head."""
import importlib.util
import json
import math
import random
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from shapely.geometry import Polygon

from mmdet3d_plugin.apis import init_model
from mmdet3d_plugin.models.heads import BEVHead
from tests.helpers.detection import (
    BEVDET,
    CLASSES,
    GRID,
    RADII,
    RANGE,
    TASKS,
    head,
    random_boxes,
    random_outs,
    sample,
)
from tests.test_fuzz_files import META, damaged
from tests.tools.test_export_onnx import STUDENT, start

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('infer', ROOT / 'tools' / 'infer_onnx.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_boxes(boxes, instances, classes=CLASSES):
    assert [box['class'] for box in boxes] == [classes[n] for n in instances.labels_3d]
    found = np.array([[*box['center'], *box['size'], box['yaw'], *box.get('velocity', [])]
                      for box in boxes])
    wanted = instances.bboxes_3d.tensor.clone()
    wanted[:, 2] += wanted[:, 5] / 2
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose([box['score'] for box in boxes], instances.scores_3d, atol=1e-5)


@pytest.mark.parametrize('settings', [
    dict(test_cfg=dict(nms_type='circle', squared_radius=RADII, post_center_range=RANGE)),
    dict(test_cfg=dict(nms_type='rotate')),
    dict(test_cfg=BEVDET, velocity='displacement'),
    dict(test_cfg=dict(nms_type=None, post_max_size=None), z='bottom', norm_bbox=False),
    dict(common_heads=dict(reg=(2, 1), height=(1, 1), dim=(3, 1), rot=(2, 1)))])
@pytest.mark.parametrize('orientation', [dict(), dict(rows='-x', cols='-y')])
def test_equal_to_torch(tool, settings, orientation):
    made = head(dict(GRID, **orientation), **settings)
    decoding = json.loads(json.dumps(made.decoding()))['']
    outs = random_outs(made, 1)
    found, = made.predict(outs, [sample(past_interval=0.4)])
    boxes = tool.decode_boxes({name: out[0].numpy() for name, out in outs.items()}, decoding,
                              made.grid.asdict(), 0.4 if made.velocity == 'displacement' else 1.0)
    assert len(boxes) > 100
    same_boxes(boxes, found.pred_instances_3d)


def test_area_of_intersections(tool):
    boxes = random_boxes(60, half=4)[0].numpy()
    corners = tool.rectangle_corners(boxes[:, :2], boxes[:, 3:5], boxes[:, 6])
    shapes = [Polygon(one) for one in corners]
    assert all(shape.exterior.is_ccw for shape in shapes)
    for first, one in zip(corners, shapes):
        for second, other in zip(corners, shapes):
            area = tool.intersection_area(first, second)
            assert area == pytest.approx(one.intersection(other).area, abs=1e-9)
    square = np.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
    assert tool.intersection_area(square, square) == 4
    assert tool.intersection_area(square, square + [0, 2]) == 0
    assert tool.intersection_area(square, square / 2 + 0.2) == pytest.approx(1)
    turn = math.sqrt(0.5)
    diamond = square @ [[turn, turn], [-turn, turn]]
    assert tool.intersection_area(square, diamond) == pytest.approx(8 * (math.sqrt(2) - 1))


def test_drawing_follows_the_grid(tool):
    """A car at x = 8, y = 4, ahead and to the left of a car that drives along +x."""
    grid = dict(x_range=[-10, 10], y_range=[-10, 10], forward_axis='+x')
    box = dict(center=[8.0, 4.0, 0.0], size=[2.0, 1.0, 1.0], yaw=0.0)
    blank = np.full((200, 200, 3), 255, np.uint8)
    rows, cols = (tool.draw_boxes(blank, [box], grid) < 128).all(-1).nonzero()
    assert abs(rows.min() - 10) <= 1 and abs(rows.max() - 30) <= 1
    assert abs(cols.min() - 55) <= 1 and abs(cols.max() - 65) <= 1
    assert (blank == 255).all()
    rows, cols = (tool.draw_boxes(blank, [box], dict(grid, forward_axis='+y')) < 128).all(
        -1).nonzero()
    assert abs(cols.max() - 190) <= 1 and abs(rows.min() - 55) <= 1


def test_what_the_head_says_for_other_programs():
    made = head(test_cfg=BEVDET, velocity='displacement')
    said = made.decoding()['']
    assert said['kind'] == 'center_point' and said['velocity'] == 'displacement'
    assert [task['classes'] for task in said['tasks']] == TASKS
    made.keep_outputs(('task0.heatmap', ))
    assert made.decoding() == {}
    assert BEVHead.decoding(made) == {}


def described():
    """Of a small detector."""
    made = head(dict(GRID, x_range=(-1.6, 1.6), y_range=(-1.6, 2.4)), tasks=[['car', 'bus']],
                test_cfg=dict(post_center_range=RANGE, scale_factors=[[2, 3]]))
    outputs = {name: dict(shape=['batch', *output.shape])
               for name, output in made.outputs().items()}
    grid = dict(made.grid.asdict(), shape=list(made.grid.shape))
    return json.loads(json.dumps(dict(META, outputs=outputs, decoding=made.decoding(), grid=grid,
                                      sha256='', arrays_sha256='')))


@pytest.mark.parametrize('place, value, message', [
    (('kind', ), 'other', 'decoded by other'),
    (('tasks', 0, 'classes'), ['car'], 'output task0.heatmap is'),
    (('tasks', 0, 'nms_type'), 'soft', 'nms_type or classes'),
    (('tasks', 0, 'max_num'), 'many', 'max_num is no whole number'),
    (('tasks', 0, 'scale_factors'), [1.0], 'scale_factors: expected 2 finite numbers'),
    (('tasks', 0, 'post_max_size'), 0.5, 'post_max_size is no whole number')])
def test_wrong_descriptions(tool, place, value, message):
    meta = described()
    tool._check_meta(meta)
    node = meta['decoding']['']
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    with pytest.raises((ValueError, TypeError), match=message):
        tool._check_meta(meta)


def test_what_is_read_of_a_damaged_description_can_be_used(tool):
    meta, accepted = described(), 0
    outs = {name: np.ones(output['shape'][1:], np.float32)
            for name, output in meta['outputs'].items()}
    blank = np.zeros((30, 20, 3), np.uint8)
    for seed in range(400):
        text = damaged(random.Random(seed), {key: meta[key] for key in ('decoding', 'grid')})
        try:
            changed = dict(meta, **json.loads(text))
            tool._check_meta(changed)
        except Exception:  # as in _read_meta, which makes it one line
            continue
        accepted += 1
        for settings in changed.get('decoding', {}).values():
            boxes = tool.decode_boxes(outs, settings, changed['grid'])
            tool.draw_boxes(blank, boxes, changed['grid'])
    assert accepted > 30


def test_displacements_need_the_interval(tool, monkeypatch):
    exported = SimpleNamespace(names=['task0.heatmap'], past=[], meta=dict(
        thresholds=[], classes=[], decoding={'': dict(velocity='displacement')}))
    monkeypatch.setattr(tool, 'Exported', lambda *_: exported)
    args = SimpleNamespace(model='m.onnx', threads=0, precision='f32', calibration=None,
                           threshold=None, interval=None, poses=None)
    with pytest.raises(tool.InputError, match='give --interval, the seconds since then'):
        tool.run(args)
    args.interval = -1.0
    with pytest.raises(tool.InputError, match='--interval: expected seconds > 0, got -1.0'):
        tool.run(args)


CONFIG = '''
_base_ = ['{base}']
model = dict(head=dict(
    _delete_=True, type='CenterPointHead', in_channels={channels},
    tasks=[['car'], ['bus', 'truck']], test_cfg=dict(score_threshold=0.1, max_num=40)))
'''


@pytest.mark.slow
def test_from_a_model_to_boxes_on_disk(tool, toytown, tmp_path, monkeypatch):
    channels = init_model(STUDENT, device='cpu').head.segmentation[0].conv.in_channels
    config = tmp_path / 'detector.py'
    config.write_text(CONFIG.format(base=ROOT / STUDENT, channels=channels))
    torch.manual_seed(0)
    model = init_model(str(config), device='cpu')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'detector.pth')
    start('export_onnx', monkeypatch, config, tmp_path / 'detector.pth', tmp_path / 'd.onnx',
          '--cfg-options', f'test_dataloader.dataset.data_root={toytown}')
    exported = tool.Exported(tmp_path / 'd.onnx', 1)
    assert exported.names == list(model.head.outputs())
    image = next(iter(sorted((toytown / 'image' / 'data').iterdir())))
    start('infer_onnx', monkeypatch, tmp_path / 'd.onnx', image, tmp_path / 'out', '--maps')
    written = json.loads((tmp_path / 'out' / 'boxes' / f'{image.stem}.json').read_text())['boxes']
    with np.load(tmp_path / 'out' / 'maps' / f'{image.stem}.npz') as maps:
        outs = {name: torch.from_numpy(maps[name])[None] for name in maps.files}
    found, = model.head.predict(outs, [sample(classes=['truck', 'bus', 'car'])])
    assert len(written) > 3
    same_boxes(written, found.pred_instances_3d, ['truck', 'bus', 'car'])
    drawn = cv2.imread(str(tmp_path / 'out' / 'bev' / f'{image.stem}.png'))
    assert (drawn[..., ::-1] != exported.arrays['background']).any(-1).sum() > 50
