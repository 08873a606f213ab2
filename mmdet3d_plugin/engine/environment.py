"""Faults of the machine (rights, room, shared memory, ports) in one line."""
import errno
import multiprocessing.queues
import os
import re
import signal
from typing import Any, Optional

from torch.utils.data import get_worker_info

_OS_ERROR = re.compile(r"\[Errno (\d+)\] ([^:\n]+)(?:: '([^'\n]+)')?")
_PLACE = 'choose another one (such as --work-dir, --out-dir or --out)'
_RIGHTS = f'change the rights of the folder, or {_PLACE}'
_ROOM = f'make room there, or {_PLACE}'
_NEXT_STEP = {
    errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS, errno.EROFS: _RIGHTS,
    errno.ENOTDIR: f'a file has the name of a folder; {_PLACE}', errno.EISDIR: _PLACE,
    errno.EEXIST: f'a file has the name of a folder; {_PLACE}', errno.ENAMETOOLONG: _PLACE,
    errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM,
    errno.EMFILE: 'raise the limit of open files: ulimit -n 65536',
}
_OF_TORCH = (
    (r'EADDRINUSE|[Aa]ddress already in use',
     'the port of the distributed run is taken; name a free one: PORT=29501 (MASTER_PORT with '
     '--launcher pytorch or slurm)'),
    (r'signal: Bus error|shared memory ?\(shm\)|shared memory (object|file)|file </torch_',
     'data workers: the shared memory /dev/shm is too small for their batches; enlarge it (docker '
     'run --shm-size=8g), or use fewer workers or smaller batches: --cfg-options '
     'train_dataloader.num_workers=0 val_dataloader.num_workers=0; a training goes on with '
     '--resume'),
    (r'DataLoader worker.* killed by signal: Killed',
     'data workers: the system ended one for want of memory; use fewer workers or smaller '
     'batches: --cfg-options train_dataloader.num_workers=1 train_dataloader.batch_size=N; a '
     'training goes on with --resume'),
    (r'[Tt]oo many open files', _NEXT_STEP[errno.EMFILE]),
)


def explain(error: BaseException) -> Optional[str]:
    """One line about a fault of the machine and the next step.

    Args:
        error (BaseException): What was raised. An error of a data worker, or one that another
            error replaced, counts too.

    Returns:
        str | None: The line; None for any other error, which is a defect.
    """
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        found = _of_system(error) if isinstance(error, OSError) else _of_torch(error)
        if found:
            return found
        error = error.__cause__ or error.__context__
    return None


def _of_system(error: OSError) -> Optional[str]:
    found = _OS_ERROR.search(str(error))
    if found and int(found[1]) in _NEXT_STEP:
        place = found[3] or 'a disk, or the shared memory /dev/shm'
        return f'{place}: {found[2]}; {_NEXT_STEP[int(found[1])]}'
    return _of_torch(error)


def _of_torch(error: BaseException) -> Optional[str]:
    if not isinstance(error, (RuntimeError, OSError)):
        return None
    return next((text for pattern, text in _OF_TORCH if re.search(pattern, str(error))), None)


def _end_worker(error: Exception, item: Any) -> None:
    """End a data worker that cannot send a batch; by default the training waits for it forever."""
    if get_worker_info() is None:
        return _report(error, item)
    out_of_memory = isinstance(error, RuntimeError) and _of_torch(error)
    if not out_of_memory:
        _report(error, item)
    os.kill(os.getpid(), signal.SIGBUS if out_of_memory else signal.SIGABRT)


_report = multiprocessing.queues.Queue._on_queue_feeder_error
multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)
