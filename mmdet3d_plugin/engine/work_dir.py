"""One work dir, one run: who trains there, and what it holds already."""
import contextlib
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Iterable, Iterator, List

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints import read_checkpoint, remove_temporary
from ..errors import UserError
from ..locking import locked
from .config import RUNNER_KEYS
from .config_text import read_config_text
from .resuming import compare_configs, describe
from .runner import latest_checkpoint

_RANK = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')
_OF_A_RUN = re.compile(r'last_checkpoint|(epoch|iter|best)_.*\.pth|\d{8}_\d{6}')


@contextlib.contextmanager
def claimed(cfg: Config, overwrite: bool = False) -> Iterator[List[Path]]:
    """Hold the work dir of a training; among several processes the first one does.

    Args:
        cfg (Config): Complete, with ``work_dir`` and ``launcher``.
        overwrite (bool): The run that the work dir holds is to be replaced. Defaults to False.

    Yields:
        list[Path]: What :func:`remove` is to remove before the training: files and folders of the
        run that is replaced.

    Raises:
        UserError: Another process trains there, or the work dir holds a run of another config or
            seed, which is neither resumed nor to be replaced.
    """
    if int(os.environ.get(_RANK.get(cfg.launcher, ''), 0)):
        yield []
        return
    folder = Path(cfg.work_dir)
    with locked(folder / '.training.lock', f'another training runs in {folder}; wait for it, or '
                'choose another --work-dir'):
        remove_temporary(folder)
        if _resumes(cfg, folder):
            yield []
        elif overwrite:
            start = Path(cfg.get('load_from') or '').resolve()
            yield sorted(path for path in folder.iterdir()
                         if _OF_A_RUN.fullmatch(path.name) and path.resolve() != start)
        else:
            _refuse_other_run(cfg, folder)
            yield []


def remove(paths: Iterable[Path]) -> None:
    """Remove files and folders."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _resumes(cfg: Config, folder: Path) -> bool:
    """Whether the training continues the run of its own work dir."""
    path = cfg.get('load_from')
    return bool(cfg.get('resume')) and (
        not path or Path(path).resolve().parent == folder.resolve())


def _refuse_other_run(cfg: Config, folder: Path) -> None:
    path = latest_checkpoint(folder)
    if path is None:
        return
    choices = ('choose another --work-dir, or replace it with --overwrite, which removes its '
               'checkpoints and logs')
    try:
        meta = read_checkpoint(path).get('meta', {})
        stored = read_config_text(meta['cfg'], path)
    except (KeyError, UserError) as error:
        raise UserError(f'{folder} holds a run whose config cannot be read ({error}); '
                        f'{choices}') from error
    ignored, used = compare_configs(stored, cfg, RUNNER_KEYS)
    if ignored or used:
        raise UserError(f'{folder} holds a run of another config, of {meta["iter"]} iterations: '
                        f'{describe({**ignored, **used})}; {choices}, or continue it with --resume')
    print_log(f'{folder} holds a run of the same config, of {meta["iter"]} iterations: it starts '
              'anew; --resume would continue it', 'current', logging.WARNING)
