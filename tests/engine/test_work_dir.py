"""One work dir, one run."""
import os

import pytest
import torch

from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.work_dir import claimed, remove
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.locking import locked

CONFIG = 'tests/toy/toy_config.py'


@pytest.fixture(autouse=True)
def toy_project(monkeypatch):
    monkeypatch.syspath_prepend('tests/toy')


def config(folder, **options):
    cfg = load_config(CONFIG, options)
    cfg.work_dir, cfg.launcher = str(folder), options.get('launcher', 'none')
    return cfg


@pytest.fixture
def finished(tmp_path):
    """A work dir with a run of four epochs."""
    log = tmp_path / '20260101_000000'
    log.mkdir()
    for name in ('epoch_4.pth', 'best_toy_mae_epoch_2.pth', 'epoch_3.pth'):
        torch.save(dict(meta=dict(cfg=config(tmp_path).pretty_text, iter=24), state_dict={}),
                   tmp_path / name)
    for path in (log / 'a.log', tmp_path / 'notes.txt', tmp_path / 'other.pth'):
        path.touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_4.pth'))
    return tmp_path


def test_a_second_training_says_who_runs(tmp_path):
    with claimed(config(tmp_path)), pytest.raises(UserError, match=(
            rf'another training runs in {tmp_path}; wait for it, or choose another --work-dir '
            rf'\(running: host \S+, pid {os.getpid()}\)')):
        with claimed(config(tmp_path)):
            pass
    with claimed(config(tmp_path)):
        pass


def test_of_several_processes_the_first_one_holds_the_work_dir(tmp_path, monkeypatch):
    for launcher, name in (('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'),
                           ('mpi', 'OMPI_COMM_WORLD_RANK')):
        monkeypatch.setenv(name, '0')
        with claimed(config(tmp_path, launcher=launcher)):
            monkeypatch.setenv(name, '1')
            with claimed(config(tmp_path, launcher=launcher)):
                pass
            with pytest.raises(UserError), claimed(config(tmp_path)):
                pass
        monkeypatch.delenv(name)


@pytest.mark.parametrize('options, difference', [
    ({'randomness.seed': 4}, 'randomness.seed 3 -> 4'),
    ({'model.dropout': 0.5}, 'model.dropout 0.3 -> 0.5'),
    ({'optim_wrapper.optimizer.lr': 0.5}, 'optim_wrapper.optimizer.lr 0.01 -> 0.5')])
def test_another_config_or_seed_does_not_mix_with_a_run(finished, options, difference):
    with pytest.raises(UserError) as error, claimed(config(finished, **options)):
        pass
    for text in (f'{finished} holds a run of another config, of 24 iterations: {difference}; ',
                 'choose another --work-dir, or replace it with --overwrite',
                 'or continue it with --resume'):
        assert text in str(error.value)
    assert (finished / 'epoch_4.pth').is_file()


def test_the_same_config_starts_anew_and_resuming_goes_on(finished, capsys):
    with claimed(config(finished)) as former:
        assert former == []
    assert 'it starts anew; --resume would continue it' in capsys.readouterr().out
    own = config(finished, **{'randomness.seed': 4})
    own.resume, own.load_from = True, str(finished / 'epoch_3.pth')
    with claimed(own) as former:
        assert former == []
    own.load_from = str(finished.parent / 'elsewhere.pth')
    with pytest.raises(UserError, match='randomness.seed 3 -> 4'), claimed(own):
        pass


def test_overwriting_removes_the_run_and_nothing_else(finished):
    cfg = config(finished, **{'randomness.seed': 4, 'load_from': str(finished / 'epoch_3.pth')})
    with claimed(cfg, overwrite=True) as former:
        assert (finished / 'epoch_4.pth').is_file()  # until the config is known to be good
        (finished / '20260101_000001').mkdir()  # of the new run
        remove(former)
    assert sorted(p.name for p in finished.iterdir()) == [
        '20260101_000001', 'epoch_3.pth', 'notes.txt', 'other.pth']


def test_a_run_that_cannot_be_read_is_not_mixed_either(finished):
    (finished / 'epoch_4.pth').write_bytes(b'damaged')
    with pytest.raises(UserError, match='holds a run whose config cannot be read.*--overwrite'):
        with claimed(config(finished)):
            pass


def test_two_trainings_in_one_folder(tmp_path, run_command):
    with locked(tmp_path / '.training.lock', 'busy'):
        done = run_command('tools/train.py', CONFIG, '--work-dir', tmp_path)
        assert done.returncode == 2
        assert f'error: another training runs in {tmp_path}' in done.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
