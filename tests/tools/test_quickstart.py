"""The quickstart: end to end with ``--smoke``."""
import json
import re

import torch

from mmdet3d_plugin.experiments.quickstart import make_stages
from mmdet3d_plugin.experiments.quickstart_report import write_report


def test_smoke(tmp_path, run_command):
    out = tmp_path / 'out'
    done = run_command('tools/quickstart.py', '--smoke', '--out-dir', out, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert re.findall(r'^\[(\d)/7\] .*elapsed \d+:\d\d, about \d+:\d\d left$', done.stdout,
                      re.M) == list('1234567')

    report = (out / 'report.html').read_text()
    cells = re.findall(r'<td>(.*?)</td>', report)
    text = [re.sub('<.*?>', '', cell) for cell in cells]
    benchmark = json.loads((out / 'evaluation' / 'benchmark.json').read_text())['models']
    parameters = {}
    for name, label in (('teacher', 'teacher'), ('student', 'student alone'),
                        ('distilled', 'distilled student')):
        [metrics] = (out / 'evaluation' / name).glob('*/*.json')
        iou = json.loads(metrics.read_text())
        row = text[text.index(label):][:8]
        assert row[2:5] == [f'{iou[f"bev/IoU{side}"]:.1f}' for side in (100, 50, 20)]
        assert row[5] == f'{benchmark[name]["parameters"]:,}'
        assert float(row[6]) > 0
        assert re.fullmatch(r'\d+:\d\d', row[7])
        parameters[name] = benchmark[name]['parameters']
        state = torch.load(out / name / 'iter_4.pth', weights_only=True)['state_dict']
        assert any(key.startswith('student.') for key in state) == (name == 'distilled')
    assert parameters['teacher'] > parameters['student'] == parameters['distilled']
    assert 'This was a smoke run' in report
    assert report.count('<img src="data:image/png;base64,') == 1  # the curves
    assert report.count('<img src="data:image/jpeg;base64,') == 1  # one held-out sequence
    assert not re.search(r'(src|href)="(?!data:)', report)  # nothing beside the file

    before = {p: p.stat().st_mtime_ns for p in out.rglob('*') if p.is_file() and p.name != '.lock'}
    done = run_command('tools/quickstart.py', '--smoke', '--out-dir', out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('finished before') == 7
    assert before == {p: p.stat().st_mtime_ns for p in before}

    done = run_command('tools/quickstart.py', '--smoke', '--out-dir', out, '--seed', '1', '--keep')
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {out}/teacher was made with other settings')
    assert before == {p: p.stat().st_mtime_ns for p in before}

    write_report(out, {stage.name: stage for stage in make_stages(out, smoke=False, seed=0)})
    full = (out / 'report.html').read_text()  # the page of the full run
    assert 'smoke run' not in full and 'loss may become negative' in full


def test_bad_out_dir(run_command, tmp_path):
    done = run_command('tools/quickstart.py', '--out-dir', tmp_path / 'a,b')
    assert done.returncode == 2
    assert 'cannot be passed on in --cfg-options' in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'a,b').exists()
