"""The quickstart: end to end with ``--smoke``, and its memory of what is finished."""
import importlib.util
import json
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('quickstart', ROOT / 'tools' / 'quickstart.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['quickstart'] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules['quickstart']


@pytest.mark.slow
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
    assert done.returncode == 1
    assert done.stderr.startswith(f'error: {out}/teacher was made with other settings')
    assert before == {p: p.stat().st_mtime_ns for p in before}


def code(text):
    return ('-c', text)


@pytest.fixture
def job(tool, tmp_path):
    """Makes a job of two steps: ``a`` appends to a/file, ``b`` counts its lines."""

    def make(word='x', b_fails=False, keep=False):
        a, b = tmp_path / 'a' / 'file', tmp_path / 'b' / 'file'
        write = (f'from pathlib import Path; p = Path({str(a)!r}); p.parent.mkdir(exist_ok=True); '
                 f'p.open("a").write({word + chr(10)!r})')
        count = (f'from pathlib import Path; p = Path({str(b)!r}); p.parent.mkdir(exist_ok=True); '
                 f'p.write_text(Path({str(a)!r}).read_text()); '
                 f'assert not Path({str(tmp_path / "fail")!r}).exists(), "no luck"')
        return tool.Quickstart(tmp_path, [
            tool.Stage('a', 'write', (code(write), ), 'a/file', 'a'),
            tool.Stage('b', 'count', (code(count), ), 'b/file', 'b', ('a', ))],
            dict(a=10, b=30), keep)

    return make


def test_finished_steps_are_skipped_and_changed_ones_made_again(job, tmp_path, tool):
    job().run()
    job().run()
    assert (tmp_path / 'b' / 'file').read_text() == 'x\n'
    with pytest.raises(tool.Failure, match='a was made with other settings'):
        job('y', keep=True).run()
    assert (tmp_path / 'a' / 'file').read_text() == 'x\n'
    job('y').run()
    assert (tmp_path / 'b' / 'file').read_text() == 'y\n'  # b depends on a
    (tmp_path / 'a' / 'file').unlink()
    job('y').run()
    assert (tmp_path / 'a' / 'file').read_text() == 'y\n'


def test_a_failing_step_is_one_line_and_is_continued(job, tmp_path, tool):
    (tmp_path / 'fail').touch()
    with pytest.raises(tool.Failure) as stop:
        job().run()
    assert str(stop.value) == ('to count failed (exit code 1): AssertionError: no luck -- whole '
                               f'log: {tmp_path}/logs/2_b.log; the same command continues here')
    assert 'AssertionError: no luck' in (tmp_path / 'logs' / '2_b.log').read_text()
    (tmp_path / 'fail').unlink()
    (tmp_path / 'b' / 'checkpoint').touch()
    job().run()
    assert (tmp_path / 'b' / 'checkpoint').exists()  # continued, not made anew
    assert job().finished(job().stages[1])


def test_foreign_folders_are_not_touched(job, tmp_path, tool):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'thesis.tex').touch()
    with pytest.raises(tool.Failure, match='a exists and is not of a quickstart'):
        job().run()
    assert (tmp_path / 'a' / 'thesis.tex').exists()


def test_remaining_time_follows_the_speed_so_far(job):
    first = job()
    assert first.remaining(first.stages[0]) == 40
    assert first.remaining(first.stages[0], 4) == 34
    first.run()
    first._write(first.stages[0], dict(first.stamp(first.stages[0]), seconds=20.0))
    (first.out / 'b' / 'file').unlink()
    assert first.remaining(first.stages[1]) == pytest.approx(60)


def test_one_at_a_time(job, tool):
    with job().locked(), pytest.raises(tool.Failure, match='another quickstart'), job().locked():
        pass


def test_verdict(tool):
    def text(*iou):
        return tool.verdict({name: {100: value} for name, value in zip(tool.MODELS, iou)})

    assert text(50, 30, 35).endswith(
        'distillation adds 5.0 points, 25 % of the way to the teacher.')
    assert text(20, 30, 35).endswith('although the teacher is no better than the student.')
    assert text(50, 30, 28).endswith('distillation did not help in this run (-2.0 points).')


def test_images_show_the_fullest_frame_of_spaced_sequences(tool, tmp_path):
    vehicles = [('s0', 1), ('s0', 3), ('s0', 3), ('s1', 0), ('s2', 2), ('s2', 5), ('s3', 1)]
    data = [dict(scene_token=scene, instances=[dict(bbox_label_3d=0)] * n
                 + [dict(bbox_label_3d=3)] * 9) for scene, n in vehicles]
    infos = dict(metainfo=dict(categories=dict(car=0, bus=1, truck=2, pedestrian=3)),
                 data_list=data)
    (tmp_path / 'dur360bev_infos_val.pkl').write_bytes(pickle.dumps(infos))
    assert tool.choose_frames(tmp_path, 4) == [1, 3, 5, 6]
    assert tool.choose_frames(tmp_path, 2) == [1, 5]
    assert tool.choose_frames(tmp_path, 9) == [1, 3, 5, 6]


def test_bad_out_dir(run_command, tmp_path):
    done = run_command('tools/quickstart.py', '--out-dir', tmp_path / 'a,b')
    assert done.returncode == 2
    assert 'cannot be passed on in --cfg-options' in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'a,b').exists()
