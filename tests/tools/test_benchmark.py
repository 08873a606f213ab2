"""The benchmark's command: its tables, its options, its errors."""
import json
import sys
from pathlib import Path

import pytest
import torch

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.benchmark.data_loading import describe_data
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.errors import UserError
from tools import benchmark

ROOT = Path(__file__).resolve().parents[2]
TOYTOWN = 'configs/kd360/kd360_{}_r18_500it_toytown{}.py'


@pytest.fixture
def start(monkeypatch, capsys):
    """Runs the tool in this process; returns what it printed."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, arguments)])
        benchmark.main()
        return capsys.readouterr().out

    return run


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
    widths = {len(line) for line in out.split('\n\n')[0].splitlines()}
    assert len(widths) == 1  # aligned
    assert 'batch 1, 3 rounds after 1 to warm up, synthetic inputs' in out


def test_evaluation_of_a_checkpoint(start, tmp_path, toytown):
    model = BEVInferencer(load_config(TOYTOWN.format('student', '')), None).model
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'student.pth')
    start(TOYTOWN.format('student', ''), tmp_path / 'student.pth', '--test', '--frames', 1,
          '--warmup', 0, '--out', tmp_path / 'table.json', '--cfg-options',
          f'test_dataloader.dataset.data_root={toytown}')
    student, = json.loads((tmp_path / 'table.json').read_text())['models'].values()
    assert {'bev/IoU100', 'bev/IoU50', 'bev/IoU20'} <= set(student['metrics'])
    assert student['milliseconds']['load']['min'] > 0


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
    assert 'steps alternately; the loader has two workers' in out


def test_loading_takes_configs_only(start):
    with pytest.raises(UserError, match='--data: x.pth is no config'):
        start('--data', 'a.py', 'x.pth')
    with pytest.raises(UserError, match='it has no predict_dataloader'):
        describe_data(load_config(TOYTOWN.format('student', '')), 'predict', 1, 0)


def test_backends_of_a_model_against_the_official_baseline(start, tmp_path):
    out = start(TOYTOWN.format('student', ''), '--synthetic', '--official', '--backends', 'eager',
                'deployed', 'eager-bf16', 'onnxruntime', '--frames', 1, '--warmup', 0, '--out',
                tmp_path / 'table.json')
    models = json.loads((tmp_path / 'table.json').read_text())['models']
    name = 'kd360_student_r18_500it_toytown'
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
