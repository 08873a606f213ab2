"""The benchmark: what it counts, what it times, and its table."""
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.benchmark import data_loading
from mmdet3d_plugin.benchmark.backends import Eager, build_backend
from mmdet3d_plugin.benchmark.latency import Entry, count_macs, synthetic_frame
from mmdet3d_plugin.benchmark.reports import parse_models
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import read_result
from mmdet3d_plugin.errors import UserError
from tools import benchmark

ROOT = Path(__file__).resolve().parents[2]
TOYTOWN = 'configs/kd360/kd360_{}_r18_toytown{}.py'


@pytest.fixture
def start(monkeypatch, capsys):
    """Runs the tool in this process; returns what it printed."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, arguments)])
        benchmark.main()
        return capsys.readouterr().out

    return run


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


def test_table(start, tmp_path):
    result = tmp_path / 'result.json'
    result.write_text(json.dumps(dict(metrics={'bev/IoU100': 10.0, 'bev/IoU50': 20.0})))
    out = start(TOYTOWN.format('teacher', ''), TOYTOWN.format('distill', '_am'), result,
                '--names', 'teacher', 'student', '--synthetic', '--points', 500, '--frames', 3,
                '--warmup', 1, '--out', tmp_path / 'table.json', tmp_path / 'table.md')
    assert out == (tmp_path / 'table.md').read_text() + '\n'
    report = json.loads((tmp_path / 'table.json').read_text())
    assert (report['synthetic'], report['frames'], report['warmup']) == (True, 3, 1)
    teacher, student = (report['models'][name] for name in ('teacher', 'student'))
    assert (teacher['parameters'], student['parameters']) == (714295, 442079)  # no assistant
    assert teacher['macs'] > student['macs'] > 1e8
    assert student['efficiency_ratio'] == pytest.approx(10 / 0.442079)
    assert teacher['efficiency_ratio'] is None and teacher['metrics'] == {}
    for model in (teacher, student):
        times = model['milliseconds']
        assert list(times) == ['load', 'preprocess', 'network', 'predict', 'without loading', 'all']
        for part in times.values():
            assert 0 <= part['min'] <= part['median'] <= part['p90'] <= part['p95']
        assert times['network']['min'] < times['without loading']['min'] <= times['all']['min']
        assert model['frames_per_second'] == pytest.approx(
            1000 / times['without loading']['median'])
    row = next(line for line in out.splitlines() if line.startswith('| student'))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[1] == '442,079' and cells[4:7] == ['10.00', '20.00', '22.62']
    channels = {len(line) for line in out.split('\n\n')[0].splitlines()}
    assert len(channels) == 1  # aligned
    assert 'batch 1, 3 turns after 1 to warm up, synthetic inputs' in out


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


def test_evaluation_of_a_checkpoint(start, tmp_path, toytown):
    model = BEVInferencer(load_config(TOYTOWN.format('student', '')), None).model
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'student.pth')
    start(TOYTOWN.format('student', ''), tmp_path / 'student.pth', '--test', '--frames', 1,
          '--warmup', 0, '--out', tmp_path / 'table.json', '--cfg-options',
          f'test_dataloader.dataset.data_root={toytown}')
    student, = json.loads((tmp_path / 'table.json').read_text())['models'].values()
    assert {'bev/IoU100', 'bev/IoU50', 'bev/IoU20'} <= set(student['metrics'])
    assert student['milliseconds']['load']['min'] > 0


# Loading ----------------------------------------------------------------------------------------


def test_loading_by_transform(start, toytown, tmp_path):
    out = start('--data', TOYTOWN.format('teacher', ''), '--frames', 5, '--warmup', 1, '--out',
                tmp_path / 'table.json', tmp_path / 'table.md', '--cfg-options', *(
                    f'{split}_dataloader.dataset.data_root={toytown}' for split in (
                        'train', 'val')))
    assert (tmp_path / 'table.md').read_text() in out
    report = json.loads((tmp_path / 'table.json').read_text())
    assert (report['split'], report['frames'], report['warmup']) == ('train', 5, 1)
    data, = report['data'].values()
    assert (data['frames_on_disk'], data['workers'], data['batch_size']) == (8, 1, 4)
    assert data['frames_per_second'] > 1
    parts = data['milliseconds']
    assert list(parts) == ['info', 'LoadDualFisheyePanorama', 'LoadOusterScan', 'BuildLiDARImage',
                           'RasterizeBEV', 'PackBEVInputs', 'all']
    shares = [part.pop('share') for part in parts.values()]
    assert sum(shares[:-1]) == pytest.approx(1) and shares[-1] == pytest.approx(1)
    for part in parts.values():
        assert 0 < part['min'] <= part['median'] <= part['p90'] <= part['p95']
    assert parts['all']['mean'] == pytest.approx(
        sum(part['mean'] for name, part in parts.items() if name != 'all'))
    spent = data['input']
    assert spent['all'] == pytest.approx(
        spent['loading'] + spent['packing'] + spent['preprocessing'], rel=0.5)
    assert 0 < spent['decoding'] < spent['loading'] and "to the network's input" in out
    assert '1 workers, batch 4' in out and '5 frames of train after 1 to warm up' in out


def test_training_steps(start, toytown, tmp_path):
    out = start('--train', TOYTOWN.format('distill', ''), '--frames', 3, '--warmup', 1, '--out',
                tmp_path / 'table.json', '--cfg-options', 'train_dataloader.batch_size=2',
                f'train_dataloader.dataset.data_root={toytown}')
    entry, = json.loads((tmp_path / 'table.json').read_text())['training'].values()
    student, distillation = entry['steps']['student'], entry['steps']['distillation']
    assert student['ratio'] == 1 and 1 < distillation['ratio'] < 2.5
    assert distillation['cpu'] > student['cpu'] > 1
    assert entry['batch_size'] == 2 and entry['peak_mib'] > 100
    assert entry['loader_frames_per_second'] > 1
    assert 'steps in turn; the loader has two workers' in out


class Slow:
    """A transform that takes as long as it says."""

    def __init__(self, seconds, transforms=()):
        self.seconds, self.transforms = seconds, transforms

    def __call__(self, results):
        time.sleep(self.seconds)
        return dict(results, n=results['n'] + 1)


class Frames:

    def __init__(self, *steps):
        self.pipeline, self.seen = SimpleNamespace(transforms=list(steps)), []

    def __len__(self):
        return 3

    def get_data_info(self, index):
        self.seen.append(index)
        return dict(n=0)


def test_each_transform_has_its_own_time_and_name():
    dataset = Frames(Slow(0.02), Slow(0.0), Slow(0.04, [Slow(0)]))
    threads = torch.get_num_threads()
    spent = list(data_loading.time_transforms(dataset, range(5)))
    assert dataset.seen == [0, 1, 2, 0, 1] and torch.get_num_threads() == threads
    assert list(spent[0]) == ['info', 'Slow', 'Slow #2', 'Slow(Slow)']
    wall, cpu = np.median([[turn[name] for name in turn] for turn in spent], 0).T
    assert 0.02 <= wall[1] < 0.035 and wall[2] < 0.01 and 0.04 <= wall[3] < 0.06
    assert cpu.max() < 0.01  # it slept


def test_the_loader_is_timed_over_epochs():
    loader = DataLoader([0, 1, 2], num_workers=0, batch_size=2)  # two batches an epoch
    seconds = list(data_loading.time_loader(loader, 5))
    assert len(seconds) == 5 and min(seconds) > 0


def test_loading_takes_configs_only(start):
    with pytest.raises(UserError, match='--data: x.pth is no config'):
        start('--data', 'a.py', 'x.pth')
    with pytest.raises(UserError, match='it has no predict_dataloader'):
        data_loading.describe_data(load_config(TOYTOWN.format('student', '')), 'predict', 1, 0)


def test_synthetic_frames_of_cached_loaders():
    pipeline = [dict(type='Cached', cache_dir='x', transforms=[
        dict(type='LoadDualFisheyePanorama', size=(8, 16))])]
    assert synthetic_frame(pipeline, 1)['inputs']['img'].shape == (1, 3, 8, 16)


def test_backends_of_a_model_against_the_official_baseline(start, tmp_path):
    out = start(TOYTOWN.format('student', ''), '--synthetic', '--official', '--backends', 'eager',
                'deployed', 'eager-bf16', 'onnxruntime', '--frames', 1, '--warmup', 0, '--out',
                tmp_path / 'table.json')
    models = json.loads((tmp_path / 'table.json').read_text())['models']
    name = 'kd360_student_r18_toytown'
    assert list(models) == [f'{name}, {backend}' for backend in (
        'official', 'eager', 'deployed', 'eager-bf16', 'onnxruntime')]
    official, eager, deployed, half, onnx = models.values()
    assert eager['difference'] == 0 and 0 < deployed['difference'] < 1e-4
    assert onnx['difference'] < 1e-3 and 1e-4 < half['difference'] < 0.1
    assert onnx['macs'] is None and official['macs'] > 1.4 * deployed['macs']
    rows = [line.split('|') for line in out.split('Times are')[0].splitlines() if name in line]
    faster = [float(row[10]) for row in rows]
    assert faster[0] == 1 and all(times > 0 for times in faster)


def test_memory_of_a_process_of_its_own(start, tmp_path):
    start(TOYTOWN.format('student', ''), '--synthetic', '--memory', '--frames', 1, '--warmup', 0,
          '--out', tmp_path / 'table.json')
    student, = json.loads((tmp_path / 'table.json').read_text())['models'].values()
    assert 200 < student['peak_mib'] < 2000


def test_every_backend_once(start):
    with pytest.raises(UserError, match='--backends: each backend once'):
        start(TOYTOWN.format('student', ''), '--synthetic', '--backends', 'eager', 'eager')


@pytest.mark.slow
def test_macs_of_the_full_student():
    """The release's 96.4 G of convolutions; the student runs no dead feature head (6.55 G), and
    applies the compressor's kernel to 32 x 64 features in place of 200 x 200 cells.
    """
    entry = Entry('student', 'configs/kd360/kd360_student_effb0_dur360bev.py')
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
