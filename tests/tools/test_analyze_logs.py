"""Curves of a log: table, plot, errors."""
import json
import shutil

import pytest

RECORDS = [
    dict(lr=0.1, data_time=0.1, loss=4.0, loss_seg=3.0, time=0.2, epoch=1, iter=10, step=10),
    dict(lr=0.1, data_time=0.1, loss=2.0, loss_seg=1.5, time=0.2, epoch=1, iter=20, step=20),
    {'bev/IoU100': 31.25, 'data_time': 0.1, 'time': 0.1, 'step': 20},
]


@pytest.fixture
def work_dir(tmp_path):
    log = tmp_path / 'run' / '20260101_000000' / 'vis_data' / '20260101_000000.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(map(json.dumps, RECORDS)) + '\n{"loss": 1.')  # killed while writing
    return tmp_path / 'run'


def test_table_and_plot(work_dir, run_command):
    out = work_dir / 'curves.png'
    done = run_command('tools/analyze_logs.py', work_dir, '--out', out)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert rows['loss'] == ['2', '4', '2', '2', '4']
    assert rows['loss_seg'] == ['2', '3', '1.5', '1.5', '3']
    assert rows['bev/IoU100'] == ['1', '31.25', '31.25', '31.25', '31.25']
    assert not {'lr', 'time', 'data_time', 'iter'} & set(rows)
    assert out.read_bytes().startswith(b'\x89PNG')


def test_errors(work_dir, tmp_path, run_command):
    done = run_command('tools/analyze_logs.py', work_dir, '--keys', 'bev/IoU10')
    assert done.returncode == 2
    assert "--keys bev/IoU10: not in the logs; did you mean 'bev/IoU100'?" in done.stderr
    done = run_command('tools/analyze_logs.py', work_dir, '--out', tmp_path / 'curves')
    assert done.returncode == 2  # matplotlib would write curves.png
    assert 'curves: expected a name that ends with .png, .pdf, .svg' in done.stderr
    done = run_command('tools/analyze_logs.py', tmp_path / 'none')
    assert done.returncode == 2
    assert 'no vis_data/*.json there' in done.stderr


def test_several_runs_of_one_name_with_different_curves(work_dir, tmp_path, run_command):
    other = tmp_path / 'student' / 'seed_0'
    for source, target in ((work_dir, tmp_path / 'teacher' / 'seed_0'), (work_dir, other)):
        shutil.copytree(source, target)
    log, = other.glob('**/*.json')
    log.write_text(json.dumps(dict(RECORDS[0], loss_student=1.0)) + '\n')
    done = run_command('tools/analyze_logs.py', tmp_path / 'teacher' / 'seed_0', other,
                       '--keys', 'loss', 'loss_student')
    assert done.returncode == 0, done.stderr
    assert '== teacher/seed_0' in done.stdout and '== student/seed_0' in done.stdout
    assert done.stdout.count('loss_student') == 1
