"""The experiment files of the repository: they resolve, and say what the papers say."""
import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet3d.registry import MODELS

from mmdet3d_plugin.engine.options import OptionText
from mmdet3d_plugin.errors import UserError, build_from
from mmdet3d_plugin.experiments.experiment import Experiment, Training, make_trainings

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted((ROOT / 'configs').glob('[!_]*/experiments/*.py'))


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_files_resolve(path, tmp_path, monkeypatch):
    for draw in ('kaiming_uniform_', 'uniform_'):  # the weights do not matter here
        monkeypatch.setattr(torch.nn.init, draw, lambda tensor, *args, **kwargs: tensor)
    experiment = Experiment.read(path)
    tasks = make_trainings(experiment, list(experiment.runs), experiment.seeds[:1], tmp_path, {})
    assert {task.name for task in tasks} == set(experiment.runs)
    for task in tasks:
        metric = task.config.val_evaluator
        known = {'map/mean', *(f'map/{name}' for name in metric.classes)} if (
            metric.type == 'MapIoUMetric') else {f'bev/IoU{side:g}' for side in metric.ranges}
        assert set(experiment.metrics) <= known and len(experiment.metrics) in (3, 7)
        if any(key.startswith('model') for key in experiment.runs[task.name].get('options') or ()):
            build_from(MODELS, task.config.model, task.name)
        schedule, loop = task.config.param_scheduler[-1], task.config.train_cfg
        if schedule.type == 'OneCycleLR':
            assert 0 < schedule.total_steps - loop.max_iters <= 100
        else:
            assert schedule.end == loop.max_epochs and schedule.convert_to_iter_based


def test_the_papers_tables_are_there():
    assert {'table1', 'table2', 'table3', 'table4', 'fig5', 'fig8'} <= {
        path.stem.split('_')[0] for path in EXPERIMENTS if path.stem.endswith('_toytown')}
    assert {'table1_dur360bev', 'table2_kitti360', 'table3_stages', 'table4_modalities',
            'fig8_losses', 'table4', 'fig5'} <= {path.stem for path in EXPERIMENTS}


def test_bridgetas_runs_are_the_papers(tmp_path):
    """Table 4: which terms, which of the assistant's parts, which figures, at both sizes."""
    parts = dict(features=(), decoded=('bev_encoder', ), full=('bev_encoder', 'head'))
    means = dict(student=56.6, direct=57.8, direct_crossed=58.2, features=58.5, decoded=59.4,
                 logits=60.5, full=60.8)
    for name in ('table4', 'table4_toytown'):
        experiment = Experiment.read(ROOT / f'configs/bridgeta/experiments/{name}.py')
        tasks = {task.name: task for task in make_trainings(
            experiment, list(experiment.runs), (0, ), tmp_path, {})}
        assert {key: run['paper'][0] for key, run in experiment.runs.items()
                if run.get('paper')} == means
        assert experiment.others['MapDistill'][0] == 59.5
        for run, kept in parts.items():
            assistant = tasks[run].config.model.assistant
            assert {key for key in ('bev_encoder', 'head') if assistant[key]} == set(kept)
        terms = {run: {key for key, term in task.config.model.terms.items() if term}
                 for run, task in tasks.items() if 'terms' in task.config.model}
        levels = {'features', 'decoded', 'logits'}
        assert terms['direct'] == terms['logits'] == levels
        assert terms['direct_crossed'] == levels | {'teacher_head'}
        assert terms['full'] == terms['both_started'] == levels | {'teacher_head',
                                                                   'assistant_head'}
        assert tasks['direct'].config.model.assistant is None
        assert set(tasks['both_started'].needs) == {'teacher', 'start'}
        assert tasks['assistant_started'].config.model.init_from_teacher == ['assistant']


def test_fig5_varies_epsilon_at_every_level(tmp_path):
    experiment = Experiment.read(ROOT / 'configs/bridgeta/experiments/fig5.py')
    epsilons = {}
    for task in make_trainings(experiment, list(experiment.runs), (0, ), tmp_path, {}):
        terms = task.config.model.get('terms', {})
        epsilons[task.name] = {(terms[level].get('epsilon'), terms[level].get('scope', 'batch'))
                               for level in ('features', 'decoded', 'logits') if terms}
    assert epsilons == dict(
        teacher=set(), direct_crossed={(None, 'batch')}, full={('optimal', 'batch')},
        sample={('optimal', 'sample')}, epsilon_1={(1.0, 'batch')}, **{
            'epsilon_0.25': {(0.25, 'batch')}, 'epsilon_4': {(4.0, 'batch')}})


RUN = dict(config='c.py', paper=(1.0, None))
FILE = dict(title='t', metrics=['bev/IoU100', 'bev/IoU50'], seeds=[0, 1], runs=dict(a=RUN))
WRONG = [
    (dict(title=3), r'x\.py: title: expected str, got 3'),
    (dict(metrics='bev/IoU100'), 'metrics: expected list or tuple'),
    (dict(metrics=[]), 'metrics: it is empty'),
    (dict(metrics=[1, 2]), r'metrics\[0\]: expected str'),
    (dict(seeds=[0, -1]), 'seeds: expected whole numbers from 0 to 4294967295, got -1'),
    (dict(seeds=[10**10]), 'seeds: expected whole numbers'), (dict(seeds=['0']), 'seeds: expected'),
    (dict(seeds=[True]), 'seeds: expected'), (dict(seeds=[1, 1]), 'seeds: one occurs twice'),
    (dict(runs=[RUN]), 'runs: expected dict'), (dict(runs={}), 'runs: it is empty'),
    (dict(runs={'.': RUN}), r'runs\.\.: a run names a folder'),
    (dict(runs={'..': RUN}), r'runs\.\.\.: a run names a folder'),
    (dict(runs={'a/b': RUN}), 'a run names a folder'),
    (dict(runs={'': RUN}), 'a run names a folder'),
    (dict(runs={'a\0': RUN}), 'a run names a folder'),
    (dict(runs={3: RUN}), 'a run names a folder'),
    (dict(runs={'a' * 200: RUN}), 'a run names a folder'),
    (dict(runs=dict(a=3)), r'runs\.a: expected dict, got 3'),
    (dict(runs=dict(a=dict(RUN, config=3))), r'runs\.a\.config: expected str, got 3'),
    (dict(runs=dict(a=dict(RUN, options=[1]))), r'runs\.a\.options: expected dict'),
    (dict(runs=dict(a=dict(RUN, teacher=['a']))), r'runs\.a\.teacher: expected str'),
    (dict(runs=dict(a=dict(RUN, columns='x'))), r'runs\.a\.columns: expected dict'),
    (dict(runs=dict(a=dict(RUN, paper=['1', 2]))), r'runs\.a\.paper: expected 2 figures'),
    (dict(runs=dict(a=dict(RUN, paper=[1e300, 2]))), r'runs\.a\.paper: expected 2 figures'),
    (dict(others=dict(b='12')), r'others\.b: expected 2 figures'),
    (dict(baseline=['a']), 'baseline: expected str'), (dict(paper=1), 'paper: expected str')]


def read(content, monkeypatch):
    whole = copy.deepcopy(content)
    monkeypatch.setattr('mmdet3d_plugin.experiments.experiment.load_config', lambda path: (
        SimpleNamespace(_cfg_dict=SimpleNamespace(to_dict=lambda: whole))))
    return Experiment.read('x.py')


@pytest.mark.parametrize('wrong, message', WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_odd_experiment_files(wrong, message, monkeypatch):
    assert list(read(FILE, monkeypatch).runs) == ['a']
    with pytest.raises(UserError, match=message):
        read({**FILE, **wrong}, monkeypatch)


BEGUN = dict(fingerprint='f', config={}, seconds=1.5, peak_kb=3, commands=[])
RESULT = dict(fingerprint='f', seconds=2, commands=[], checkpoint='iter_4.pth',
              metrics={'m/x': 0.5})
DAMAGED = [(name, damage) for name, good in (('begun', BEGUN), ('result', RESULT)) for damage in (
    '', '[' * 100_000, '3', '[]', '{"fingerprint": ', 'null',
    *(json.dumps({k: v for k, v in good.items() if k != gone}) for gone in good),
    *(json.dumps(dict(good, **{key: odd})) for key in good
      for odd in ({'x': []} if type(good[key]) is not dict else 'x', None)),
    json.dumps(dict(good, seconds=float('nan'))), json.dumps(dict(good, seconds=10**400)))] + [
        ('result', json.dumps(dict(RESULT, checkpoint='../iter_4.pth'))),
        ('result', json.dumps(dict(RESULT, metrics={'m/x': '0.5'})))]


@pytest.mark.parametrize('name, damage', DAMAGED, ids=[str(n) for n in range(len(DAMAGED))])
def test_damaged_states_of_trainings(name, damage, tmp_path):
    training = Training('a', 0, tmp_path, config=None)
    (tmp_path / 'last_checkpoint').touch()
    for file, content in (('begun', BEGUN), ('result', RESULT)):
        (tmp_path / f'{file}.json').write_text(json.dumps(content))
    assert training.begun == BEGUN and training.result == RESULT
    (tmp_path / f'{name}.json').write_text(damage)
    with pytest.raises(UserError, match=rf'{name}\.json: damaged: .*; delete it') as error:
        assert training.begun is training.result
    assert len(str(error.value)) < 500


def test_options_of_the_command_line_are_read_by_the_entry_that_they_replace(tmp_path):
    experiment = Experiment.read(ROOT / 'configs/kd360/experiments/table3_stages_toytown.py')
    options = {'train_dataloader.batch_size': OptionText('1'), 'data_root': OptionText('007'),
               'train_cfg.max_iters': OptionText('2')}
    training, = make_trainings(experiment, ['student'], [0], tmp_path, options)
    assert training.config.train_dataloader.batch_size == 1
    assert training.config.train_cfg.max_iters == 2
    assert training.config.train_dataloader.dataset.data_root == '007'
