"""Errors that a user of the training tools can cause: one line, exit code 2."""
import hashlib
import json

import pytest
import torch
from mmdet3d.registry import MODELS

from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import read_result
from mmdet3d_plugin.locking import locked

CONFIG = 'tests/toy/toy_config.py'
ERRORS = {
    'config_missing': (['tests/toy/toy_confg.py'],
                       "config tests/toy/toy_confg.py: no such file; did you mean 'toy_config.py'"),
    'model_key': ([CONFIG, '--cfg-options', 'model.head.focal_gama=3'],
                  "model.head.focal_gama: ToyHead has no such argument; "
                  "did you mean 'focal_gamma'?"),
    'model_type': ([CONFIG, '--cfg-options', 'model.head.type=ToyHed'],
                   "model.head.type: 'ToyHed' is not in the registry 'model'; "
                   "did you mean 'ToyHead'"),
    'top_level_key': ([CONFIG, '--cfg-options', 'train_dataloder.batch_size=3'],
                      "train_dataloder: no such key of a config; did you mean 'train_dataloader'?"),
    'dataset_key': ([CONFIG, '--cfg-options', 'train_dataloader.dataset.sise=3'],
                    "train_dataloader.dataset.sise: ToyDataset has no such argument; "
                    "did you mean 'size'"),
    'loader_key': ([CONFIG, '--cfg-options', 'train_dataloader.batch_sise=3'],
                   'train_dataloader.batch_sise: a data loader has no such argument; '
                   "did you mean 'batch_size'"),
    'optimizer_key': ([CONFIG, '--cfg-options', 'optim_wrapper.optimizer.weight_decai=1'],
                      'optim_wrapper.optimizer.weight_decai: AdamW has no such argument; '
                      "did you mean 'weight_decay'"),
    'hook_key': ([CONFIG, '--cfg-options', 'default_hooks.logger.intervall=1'],
                 'default_hooks.logger.intervall: LoggerHook has no such argument; '
                 "did you mean 'interval'"),
    'option_form': ([CONFIG, '--cfg-options', 'batch'], "expected key=value, got 'batch'"),
    'resume_missing': ([CONFIG, '--resume', 'gone.pth'], 'checkpoint gone.pth: no such file'),
    'amp': ([CONFIG, '--amp', 'fp16'], '--amp fp16: needs a GPU, and there is none'),
    'scale_lr': ([CONFIG, '--auto-scale-lr'], 'the config has no auto_scale_lr.base_batch_size'),
}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs ``tools/train.py`` in this process, which spares the imports."""
    import runpy
    import sys
    monkeypatch.syspath_prepend('tests/toy')

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['train.py', *arguments, '--work-dir', str(tmp_path)])
        runpy.run_path('tools/train.py', run_name='__main__')

    return run


@pytest.mark.parametrize('case', ERRORS)
def test_errors_are_one_line(case, train, tmp_path, capsys, monkeypatch):
    arguments, expected = ERRORS[case]
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit) as stop:
        train(*arguments)
    assert stop.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected in last and 'error: ' in last
    assert not list(tmp_path.glob('**/*.pth'))


@pytest.mark.parametrize('damage', ['cut', 'text', 'foreign', 'weights_only'])
def test_resuming_from_a_bad_file(damage, train, tmp_path, capsys):
    path, content = tmp_path / 'bad.pth', b'no checkpoint'
    torch.save(dict(state_dict=dict(other=torch.ones(3))), path)
    expected = 'holds weights but no state of a training'
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:-100])
        expected = 'cut short or damaged'
    elif damage == 'text':
        path.write_bytes(content)
        expected = 'it is no checkpoint'
    elif damage == 'foreign':
        torch.save(dict(state_dict=dict(other=torch.ones(3)), optimizer={},
                        meta=dict(epoch=1, iter=1),
                        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={})), path)
        expected = 'its weights do not fit the model of the config'
    with pytest.raises(SystemExit) as stop:
        train(CONFIG, '--resume', str(path))
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_note_of_a_lost_checkpoint_is_an_error(train, tmp_path, capsys):
    (tmp_path / 'last_checkpoint').write_text('/nowhere/epoch_3.pth')
    with pytest.raises(SystemExit):
        train(CONFIG, '--resume')
    assert 'which does not exist; give the checkpoint with --resume PATH' in capsys.readouterr().err


def test_testing_a_foreign_checkpoint_is_an_error(tmp_path, run_command):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=dict(other=torch.ones(3))), path)
    done = run_command('tools/test.py', CONFIG, path, '--work-dir', tmp_path / 'out')
    assert done.returncode == 2
    assert f'checkpoint {path}: not of this model (ToyModel): 9 entries missing, 1 unexpected' in \
        done.stderr.strip().splitlines()[-1]


def test_resuming_an_empty_folder_starts_as_the_config_says(train, tmp_path, monkeypatch):
    """``--resume`` is what a scheduler repeats: the first time there is nothing to resume."""
    from mmengine.runner import Runner
    loaded = []
    monkeypatch.setattr(Runner, 'load_checkpoint', lambda self, path, *args, **kwargs: (
        loaded.append((path, self._resume)), dict(state_dict={}))[1])
    torch.save({}, tmp_path / 'start.pth')
    train(CONFIG, '--resume', '--cfg-options', f'load_from={tmp_path / "start.pth"}',
          'train_cfg.max_epochs=1')
    assert loaded == [(str(tmp_path / 'start.pth'), False)]


def test_the_metrics_name_what_was_evaluated_also_beside_a_training(
        tmp_path, run_command, monkeypatch):
    monkeypatch.syspath_prepend('tests/toy')
    model = MODELS.build(load_config(CONFIG).model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    with locked(tmp_path / 'out' / '.training.lock', 'a training'):
        done = run_command('tools/test.py', CONFIG, tmp_path / 'a.pth', '--work-dir',
                           tmp_path / 'out', '--cfg-options', 'test_dataloader.dataset.size=5')
    assert done.returncode == 0, done.stderr
    path, = (tmp_path / 'out').glob('2*/2*.json')
    result = json.loads(path.read_text())
    digest = hashlib.sha256((tmp_path / 'a.pth').read_bytes()).hexdigest()
    assert result['toy/count'] == 5 and result['config'] == CONFIG
    assert result['cfg_options'] == {'test_dataloader.dataset.size': '5'}
    assert result['checkpoint'] == str(tmp_path / 'a.pth')
    assert result['checkpoint_sha256'] == digest
    assert read_result(path).keys() == {'toy/mae', 'toy/count'}
