"""The runner of experiments: order, memory, failures, tables; and one real table of two steps."""
import json
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.experiments import experiment, jobs
from mmdet3d_plugin.locking import locked
from tools import run_experiments

ROOT = Path(__file__).resolve().parents[2]

FILE = """
title = 'Toy'
metrics = ('toy/mae', 'toy/count')
seeds = (0, 1)
baseline = 'plain'
paper = 'elsewhere'


def run(lr, **more):
    return dict(config='tests/toy/toy_config.py', options={'optim_wrapper.optimizer.lr': lr},
                **more)


runs = dict(plain=run(0.1, columns=dict(lr=0.1), paper=(1.5, None)), other=run(0.2))
"""

# Stands for tools/train.py: counts its calls, resumes from its note, writes what a training writes.
TRAINING = """
import json, re, sys, time
from pathlib import Path
folder, fail = Path(sys.argv[1]), Path(sys.argv[2])
with open(folder / 'calls', 'a') as file:
    file.write('x')
print('Iter(train) [2/4] loss: 0.5', flush=True)
(folder / 'last_checkpoint').write_text(str(folder / 'iter_4.pth'))
(folder / 'iter_4.pth').touch()
if fail.read_text() == 'sleep':
    time.sleep(60)
if folder.parts[-2:] == tuple(fail.read_text().split()):
    sys.exit('error: no luck')
lr = float(re.search(r'lr=([0-9.]+)', (folder / 'config.py').read_text())[1])
seed = int(folder.name[-1])
log = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True, exist_ok=True)
log.write_text(json.dumps({'toy/mae': 9.0, 'step': 2}) + chr(10)
               + json.dumps({'loss': 0.5, 'toy/x': 0, 'step': 4}) + chr(10)
               + json.dumps({'toy/mae': 10 * lr + seed, 'toy/count': 12, 'step': 4}) + chr(10)
               + '{"lo')
"""


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """Runs the tool in this process with stand-ins of the trainings; returns what it printed."""
    monkeypatch.syspath_prepend(str(ROOT / 'tests' / 'toy'))
    monkeypatch.chdir(ROOT)
    (tmp_path / 'training.py').write_text(TRAINING)
    (tmp_path / 'fail').write_text('')
    commands = experiment.Training.commands

    def stand_in(training):
        commands(training)
        return [[str(tmp_path / 'training.py'), str(training.folder), str(tmp_path / 'fail')]]

    monkeypatch.setattr(experiment.Training, 'commands', stand_in)

    def run(*arguments, text=FILE):
        path = tmp_path / 'experiment.py'
        path.write_text(textwrap.dedent(text))
        monkeypatch.setattr(sys, 'argv', ['run_experiments.py', str(path), '--work-dir',
                                          str(tmp_path / 'work'), *map(str, arguments)])
        run_experiments.main()
        return capsys.readouterr().out

    run.work = tmp_path / 'work'
    run.calls = lambda: {str(path.parent.relative_to(run.work)): len(path.read_text())
                         for path in run.work.glob('*/*/calls')}
    run.fail = (tmp_path / 'fail').write_text
    return run


def test_trains_each_run_with_each_seed_and_tabulates(start):
    out = start()
    assert set(start.calls()) == {'plain/seed_0', 'plain/seed_1', 'other/seed_0', 'other/seed_1'}
    table = json.loads((start.work / 'table.json').read_text())
    values = {row['name']: row['values']['toy/mae'] for row in table['rows']}
    assert values == dict(plain={'0': 1.0, '1': 2.0}, other={'0': 2.0, '1': 3.0})
    text = (start.work / 'table.md').read_text()
    assert '| run | lr | seeds | mae | count | mae − plain | paper: mae / count |' in text
    assert '| plain | 0.1 | 2 | 1.50 ± 0.71 | 12.00 ± 0.00 |  | 1.5 / – |' in text
    assert '| other |  | 2 | 2.50 ± 0.71 | 12.00 ± 0.00 | +1.00 ± 0.00 | – |' in text
    assert "The paper's figures (elsewhere) are the paper's, not ours." in text
    assert text in out and 'plain, seed 0:  50 %, loss 0.5' in out
    assert (start.work / 'table.png').read_bytes()[:4] == b'\x89PNG'
    result = json.loads((start.work / 'other' / 'seed_1' / 'result.json').read_text())
    assert result['checkpoint'] == 'iter_4.pth' and result['metrics']['toy/mae'] == 3.0
    config = (start.work / 'other' / 'seed_1' / 'config.py').read_text()
    assert 'randomness = dict(seed=1)' in config and 'lr=0.2' in config


def test_finished_ones_are_skipped_and_failed_ones_tried_again(start, capsys):
    start.fail('plain seed_1')
    with pytest.raises(UserError, match='1 of 4 trainings failed'):
        start('--jobs', 2)
    out = capsys.readouterr().out
    assert 'plain, seed 1: no luck -- exit code 1, whole log: ' in out
    assert '| plain | 0.1 | 1 | 1.00 | 12.00 |' in out
    start.fail('')
    assert start('--list').count('interrupted') == 1
    start('--seeds', 1)
    start()
    assert start.calls() == {'plain/seed_0': 1, 'plain/seed_1': 2, 'other/seed_0': 1,
                             'other/seed_1': 1}


def test_an_interrupted_training_ends_and_is_resumed(start, monkeypatch):
    start.fail('sleep')

    def interrupt(running, return_when):
        while not list(start.work.glob('*/*/iter_4.pth')):
            time.sleep(0.02)
        raise KeyboardInterrupt

    begin = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, 'wait', interrupt)
        with pytest.raises(KeyboardInterrupt):
            start('--only', 'plain', '--seeds', 0)
    assert time.monotonic() - begin < 30  # the training did not sleep to its end
    assert 'interrupted' in start('--only', 'plain', '--seeds', 0, '--list')
    start.fail('')
    start('--only', 'plain', '--seeds', 0)
    assert start.calls() == {'plain/seed_0': 2}


def test_a_run_starts_from_the_weights_of_another(start):
    text = FILE.replace('run(0.2)', "run(0.2, start='plain')") + "others = {'theirs': (0.5, None)}"
    out = start('--seeds', 1, '--only', 'other', text=text)
    assert start.calls() == {'plain/seed_1': 1, 'other/seed_1': 1}
    begun = start.work / 'plain' / 'seed_1' / 'iter_4.pth'
    assert f"load_from = '{begun}'" in (start.work / 'other' / 'seed_1' / 'config.py').read_text()
    assert '| theirs |  | – | – | – | – | 0.5 / – |' in out
    assert start('--seeds', 1, '--list', text=text).count('finished') == 2
    with pytest.raises(UserError, match='(plain|other): .* another config'):  # so is its child
        start('--seeds', 1, text=text.replace('plain=run(0.1', 'plain=run(0.3'))


def test_a_student_waits_for_its_teacher(start, capsys, monkeypatch):
    text = FILE.replace('run(0.2)', "run(0.2, teacher='plain')")
    load = experiment._load
    monkeypatch.setattr(experiment, '_load', lambda given, name, overrides: load(
        experiment.Experiment(**{**given.__dict__, 'runs': {
            key: {**run, 'teacher': None} for key, run in given.runs.items()}}),
        name, overrides))
    start.fail('plain seed_0')
    with pytest.raises(UserError, match='2 of 2 trainings failed'):
        start('--seeds', 0, text=text)
    assert 'other, seed 0: its teacher (plain, seed 0) is not finished' in capsys.readouterr().out
    assert start.calls() == {'plain/seed_0': 1}


def test_a_changed_config_is_refused_redone_or_kept(start):
    start('--seeds', 0)
    changed = FILE.replace('run(0.2)', 'run(0.3)')
    with pytest.raises(UserError, match=r'^other: .* another config '
                       r'\(optim_wrapper.optimizer.lr 0.2, now 0.3\); train them again with '
                       '--redo, count them as they are with --keep'):
        start('--seeds', 0, text=changed)
    start('--seeds', 0, '--keep', text=changed)
    assert start.calls() == {'plain/seed_0': 1, 'other/seed_0': 1}
    assert '3.00' not in (start.work / 'table.md').read_text()
    start('--seeds', 0, '--redo', 'other', text=changed)
    assert '| other |  | 1 | 3.00 | 12.00 | +2.00 |' in (start.work / 'table.md').read_text()
    start('--seeds', 0, '--cfg-options', 'dataset.size=12', text=changed)


def test_results_of_other_files_or_another_version_are_not_taken(start, tmp_path, monkeypatch):
    """The info file and the weights are other ones, under the same names."""
    for name in ('infos.pkl', 'iter_1.pth'):
        (tmp_path / name).write_bytes(b'one')
    text = FILE.replace("'optim_wrapper", f"'extra': dict(data_root={str(tmp_path)!r}, "
                        f"ann_file='infos.pkl'), 'load_from': {str(tmp_path / 'iter_1.pth')!r}, "
                        "'optim_wrapper")
    start('--seeds', 0, text=text)
    for name in ('infos.pkl', 'iter_1.pth'):
        (tmp_path / name).write_bytes(b'two')
        with pytest.raises(UserError, match=rf'\(content of {tmp_path}/{name} 7692c3ad3540bb80, '
                           r'now 3fc4ccfe745870e2\); train them again with --redo'):
            start('--seeds', 0, text=text)
        (tmp_path / name).write_bytes(b'one')
    start('--seeds', 0, text=text)
    assert start.calls() == {'plain/seed_0': 1, 'other/seed_0': 1}
    monkeypatch.setitem(jobs.CODE, 'mmdet3d_plugin', '9.9.9')
    with pytest.raises(UserError, match=r'\(mmdet3d_plugin 0.1.0, now 9.9.9\)'):
        start('--seeds', 0, text=text)


def test_only_one_process_trains_in_a_folder(start, capsys):
    start('--only', 'plain', '--seeds', 0)
    (start.work / 'plain' / 'seed_0' / 'result.json').unlink()
    lock = start.work / 'plain' / 'seed_0' / '.lock'
    with locked(lock, 'busy'), pytest.raises(UserError, match='1 of 1 trainings failed'):
        start('--only', 'plain', '--seeds', 0)
    assert 'another process trains in' in capsys.readouterr().out


def test_an_unknown_metric_is_an_error(start, capsys):
    with pytest.raises(UserError):
        start('--seeds', 0, text=FILE.replace("'toy/count'", "'toy/cout'"))
    assert "gives no 'toy/cout'; did you mean 'toy/count'?" in capsys.readouterr().out


@pytest.mark.parametrize('old, new, message', [
    ("title = 'Toy'", '', 'it has no title; an experiment file needs'),
    ('toy_config.py', 'toy_confg.py', "runs.plain: config .*no such file; did you mean 'toy_con"),
    ("'optim_wrapper.optimizer.lr'", "'optim_wrapper.optimizer.lt'",
     'optimizer.lt: AdamW has no such argument'),
    ("'optim_wrapper.optimizer.lr'", "'model.head.gamma'",
     "runs.plain.model.head.gamma: ToyHead has no such argument; did you mean 'focal_gamma'"),
    ('paper=(1.5, None)', 'paper=(1, )',
     'plain.paper: expected 2 figures, one for each of metrics'),
    ('columns', 'colums', "runs.plain.colums: no such key; did you mean 'columns'?"),
    ("baseline = 'plain'", "baseline = 'plan'", "baseline: no run 'plan'; did you mean 'plain'?"),
    ('run(0.2)', "run(0.2, teacher='plan')", "runs.other.teacher: no run 'plan'; did you mean"),
    ('run(0.2)', "run(0.2, teacher='plain')", 'runs.other.teacher: .* distils nothing'),
    ('run(0.2)', "run(0.2, teacher='other')", 'other.teacher: other <- other is a circle'),
    ('run(0.2)', "run(0.2, start='plan')", "runs.other.start: no run 'plan'; did you mean"),
    ('runs = ', "others = {'a': (1, )}\nruns = ", 'others.a: expected 2 figures, one for each')])
def test_errors_of_the_file(start, old, new, message):
    with pytest.raises(UserError, match=message):
        start(text=FILE.replace(old, new))
    assert not start.calls()


@pytest.mark.parametrize('arguments, message', [
    (('--only', 'plane'), "--only: no run 'plane'; did you mean 'plain'?"),
    (('--redo', 'plane'), "--redo: no run 'plane'; did you mean 'plain'?"),
    (('--task', 4), '--task 4: there are tasks 0 to 3')])
def test_errors_of_the_command(start, arguments, message):
    with pytest.raises(UserError, match=message):
        start(*arguments)


def test_metrics_that_are_added_later_are_read_from_the_logs(start):
    start(text=FILE.replace("('toy/mae', 'toy/count')", "('toy/mae', )").replace(
        '(1.5, None)', '(1.5, )'))
    out = start('--table', text=FILE.replace("'toy/count')", "'toy/count', 'toy/cuont')").replace(
        '(1.5, None)', '(1.5, None, None)'))
    assert '| plain | 0.1 | 2 | 1.50 ± 0.71 | 12.00 ± 0.00 | – |' in out
    assert ("plain, seed 0: metrics: the validation gives no 'toy/cuont'; did you mean "
            "'toy/count'?; the table has – for it") in out


def test_slurm_submits_one_array(start):
    start('--slurm-array')
    script = (start.work / 'slurm.sh').read_text()
    assert script.count('--array=0-3') == 1 and '--dependency' in script.splitlines()[-1]


def test_a_training_ends_with_a_killed_launcher(tmp_path, run_command):
    file, folder = tmp_path / 'one.py', tmp_path / 'work' / 'long' / 'seed_0'
    file.write_text("title, metrics, seeds = 'One', ('toy/mae', ), (0, )\n"
                    "runs = dict(long=dict(config='tests/toy/toy_config.py', options={\n"
                    "    'custom_hooks.0.sleep': 0.5, 'train_cfg.max_epochs': 1000}))\n")
    launcher = run_command('tools/run_experiments.py', file, '--work-dir', tmp_path / 'work',
                           wait=False)
    deadline = time.time() + 100
    while time.time() < deadline and not (folder / 'last_checkpoint').is_file():
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)
    launcher.kill()
    launcher.communicate()
    deadline = time.time() + 10
    while True:
        try:
            with locked(folder / '.lock', 'it still trains'):
                break
        except UserError:
            assert time.time() < deadline
            time.sleep(0.1)


@pytest.mark.slow
def test_a_teacher_and_its_student(tmp_path, toytown, run_command):
    experiment = tmp_path / 'two.py'
    experiment.write_text(textwrap.dedent(f"""
        title, metrics, seeds = 'Two', ('bev/IoU100', ), (3, )
        loaders = {{f'{{split}}_dataloader.{{key}}': value for split in ('train', 'val')
                    for key, value in dict(num_workers=0, persistent_workers=False, batch_size=2,
                                           dataset=dict(data_root={str(toytown)!r})).items()}}
        options = {{'train_cfg.max_iters': 2, 'param_scheduler.0.total_steps': 3, **loaders}}
        runs = dict(
            distilled=dict(config='configs/kd360/kd360_distill_r18_500it_toytown.py',
                           teacher='teacher', options=options),
            teacher=dict(config='configs/kd360/kd360_teacher_r18_500it_toytown.py',
                         options=options))
    """))
    done = run_command('tools/run_experiments.py', experiment, '--work-dir', tmp_path / 'work',
                       timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / 'work' / 'table.json').read_text())['rows']
    assert [row['name'] for row in rows] == ['distilled', 'teacher']
    assert all(0 <= row['values']['bev/IoU100']['3'] <= 100 for row in rows)
    folder = tmp_path / 'work' / 'distilled' / 'seed_3'
    state = torch.load(folder / 'iter_2.pth', weights_only=True)
    assert any(key.startswith('student.') for key in state['state_dict'])
    teacher = tmp_path / 'work' / 'teacher' / 'seed_3'
    assert Config.fromfile(folder / 'config.py').model.teacher == dict(
        config=str(teacher / 'config.py'), checkpoint=str(teacher / 'iter_2.pth'))
