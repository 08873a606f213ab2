"""A cell is foreground where its probability is at least the threshold: in every metric and image.

The probability 0.45 as float32 is less than the threshold 0.45 as float64; both count as equal.
"""
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.structures import PixelData

from mmdet3d_plugin.evaluation import BEVIoUMetric, MapIoUMetric
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.models.heads.instances import CenterGrouping
from mmdet3d_plugin.visualization import draw

ROOT = Path(__file__).resolve().parents[2]
GRID = BEVGrid((-2, 2), (-2, 2), 1.0)
AT = 0.45


@pytest.fixture
def seg():
    """(1, 4, 4): the first row has the threshold, the others are just below."""
    seg = torch.full((1, 4, 4), AT)
    seg[:, 1:] = float(np.nextafter(np.float32(AT), np.float32(0)))
    return seg


def test_metrics(seg):
    sample = Det3DDataSample(metainfo=dict(bev_grid=GRID.asdict()))
    truth = torch.zeros(1, 4, 4)
    truth[:, 0] = 1
    sample.pred_bev, sample.gt_bev = PixelData(seg=seg), PixelData(seg=truth)
    metric = BEVIoUMetric(ranges=(4, ), threshold=AT)
    metric.process({}, [sample.to_dict()])
    assert metric.results[0].tolist() == [[[4, 4, 4]]]
    metric = MapIoUMetric(('a', ), thresholds=(AT, ))
    metric.process({}, [sample.to_dict()])
    assert metric.results[0].tolist() == [[[4, 0, 0]]]


def test_instances(seg):
    centerness = torch.zeros(1, 4, 4)
    centerness[0, 0, 0] = 1
    ids = CenterGrouping(threshold=AT)(seg, centerness, torch.zeros(2, 4, 4))
    assert (ids[0] > 0).sum(1).tolist() == [4, 0, 0, 0]


def coloured(image):
    """Rows of cells with a colour that is not the ground's."""
    cells = image[5::10, 5::10].astype(int)
    return (np.abs(cells - draw.GROUND).sum(-1) > 0).all(1).sum()


def test_drawings(seg, monkeypatch):
    monkeypatch.setattr(draw, '_draw_car', lambda *_: None)
    assert coloured(draw.draw_map(GRID, seg.numpy(), 40, AT)) == 1
    assert coloured(draw.draw_map(GRID, seg.numpy(), 40, [AT])) == 1
    assert coloured(draw.draw_bev(GRID, pred=seg.numpy(), size=40, threshold=AT, rings=())) == 1
    truth = np.zeros((1, 4, 4))
    truth[0, 0] = 1
    assert draw._class_iou(truth, seg.numpy(), [AT]) == ', mean IoU 100 % here'
    assert draw._iou(truth[0], np.where(truth[0], 0.5, 0.4999)) == ', IoU 100 % here'


def test_inference_without_torch(seg):
    spec = importlib.util.spec_from_file_location('infer_onnx', ROOT / 'tools' / 'infer_onnx.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    ground = np.array([9, 9, 9], np.uint8)
    arrays = dict(cells_top_down=np.mgrid[:4, :4], ground=ground, colours=[[1, 2, 3]],
                  background=np.full((4, 4, 3), 9, np.uint8))
    image = tool.draw_map(seg.numpy(), arrays, [AT])
    assert (image == [1, 2, 3]).all(-1).sum(1).tolist() == [4, 0, 0, 0]


def test_configs_of_the_release_round_as_the_release():
    for path in sorted((ROOT / 'configs/kd360/release').glob('*.py')):
        cfg = Config.fromfile(path)
        assert cfg.val_evaluator == cfg.test_evaluator == dict(
            type='BEVIoUMetric', ranges=(100, 50, 20), strict=True)
