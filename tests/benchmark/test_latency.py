"""What a benchmark counts and reads."""
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.benchmark.backends import Eager, build_backend
from mmdet3d_plugin.benchmark.latency import Entry, count_macs, synthetic_frame
from mmdet3d_plugin.benchmark.reports import parse_models
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import read_result
from mmdet3d_plugin.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TOYTOWN = str(ROOT / 'configs/kd360/kd360_{}_r18_500it_toytown{}.py')


class Network(nn.Module):

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1)
        self.linear = nn.Linear(8, 5)

    def forward(self, x, mode):
        cells = self.conv(x).flatten(2).mT
        return self.linear(cells) @ torch.ones(5, 7)


def test_macs_of_convolution_linear_layer_and_matrix_product():
    model = Network()
    model.data_preprocessor = lambda batch, training: dict(x=batch)
    entry = SimpleNamespace(runtime=Eager(model), backend='eager',
                            batch=lambda start, size: torch.zeros(1, 3, 10, 20))
    assert count_macs(entry) == 8 * 3 * 9 * 50 + 50 * 8 * 5 + 50 * 5 * 7


def test_synthetic_frames_have_the_sizes_of_the_data():
    pipeline = load_config(TOYTOWN.format('teacher', '')).test_dataloader.dataset.pipeline
    frame = synthetic_frame(pipeline, 100)
    shapes = {key: tuple(value.shape) for key, value in frame['inputs'].items()}
    assert shapes == dict(img=(1, 3, 128, 512), lidar_img=(3, 64, 512), points=(100, 3))
    camera, = frame['data_samples'].cameras
    assert (camera['height'], camera['width']) == (128, 512)
    assert np.rad2deg([camera['fov_up'], camera['fov_down']]) == pytest.approx([30, -60])
    pipeline = load_config(TOYTOWN.format('distill', '')).test_dataloader.dataset.pipeline
    assert set(synthetic_frame(pipeline, 100)['inputs']) == {'img'}
    with pytest.raises(UserError, match='no ...Panorama and no ...LiDARImage'):
        synthetic_frame([dict(type='LoadPointCloud')], 1)


@pytest.mark.parametrize('words, message', [
    (['x.pth'], 'x.pth: expected CONFIG.py, followed by'),
    (['a.py', 'x.pth', 'y.pth'], 'y.pth: expected CONFIG.py'),
    (['a.py', 'x.onnx'], 'x.onnx: expected CONFIG.py'),
    (['a.py', 'a.py'], 'two models have the same name; tell them apart with --names')])
def test_words_that_are_no_models(words, message):
    with pytest.raises(UserError, match=message):
        parse_models(words, None)


def test_words_are_grouped_by_model():
    entries = parse_models(['a.py', 'b.py', 'b.json', 'b.pth'], ['x', 'y'])
    assert [(e.name, e.checkpoint, e.result) for e in entries] == [
        ('x', None, None), ('y', 'b.pth', 'b.json')]


def test_a_result_without_metrics_is_an_error(tmp_path):
    (tmp_path / 'r.json').write_text('{"loss": 1}')
    with pytest.raises(UserError, match='it holds no metrics such as bev/IoU100'):
        read_result(tmp_path / 'r.json')


def test_synthetic_frames_of_cached_loaders():
    pipeline = [dict(type='Cached', cache_dir='x', transforms=[
        dict(type='LoadDualFisheyePanorama', size=(8, 16))])]
    assert synthetic_frame(pipeline, 1)['inputs']['img'].shape == (1, 3, 8, 16)


@pytest.mark.slow
def test_macs_of_the_full_student():
    """The release's 96.4 G of convolutions; the student runs no dead feature head (6.55 G), and
    applies the compressor's kernel to 32 x 64 features in place of 200 x 200 cells.
    """
    entry = Entry('student', 'configs/kd360/kd360_student_effb0_12k_dur360bev.py')
    entry.inferencer = BEVInferencer(load_config(ROOT / entry.config), None, 'cpu')
    entry.synthetic = synthetic_frame(entry.inferencer.dataset_cfg.pipeline, 1)
    macs = {}
    for entry.backend in ('official', 'eager'):
        entry.runtime = build_backend(entry.backend, entry.inferencer.model, entry.batch(0, 1))
        macs[entry.backend] = count_macs(entry)
    compressor = 1024 * 128 * 9
    assert macs['official'] == pytest.approx(96.4e9, rel=2e-3)
    assert macs['official'] - macs['eager'] == pytest.approx(
        6.55e9 + compressor * (200 * 200 - 32 * 64), rel=2e-3)
