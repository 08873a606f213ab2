"""Locks of folders: one run at a time writes there."""
import contextlib
import fcntl
import os
import platform
from pathlib import Path
from typing import BinaryIO, Iterator, Set, Union

from .checkpoints import disk_errors
from .errors import UserError

LAUNCHER = 'MMDET3D_PLUGIN_LAUNCHER'
"""Environment variable: number of the process that a tool belongs to, and ends with."""
_HELD: Set[BinaryIO] = set()


@contextlib.contextmanager
def locked(path: Union[str, Path], busy: str) -> Iterator[int]:
    """Hold a lock; the system ends it with the process, however that ends.

    A program that is started with the file descriptor holds it too, even when this process is
    killed; a forked process, such as a data worker, does not. Where the file system has no locks,
    there is none.

    Args:
        path (str | Path): File of the lock, which says who holds it; removed at the end.
        busy (str): Message of the error.

    Yields:
        int: The file descriptor.

    Raises:
        UserError: Somebody else holds it, or its folder cannot be written.
    """
    path = Path(path)
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(path, busy) as file:
            name_holder(file.fileno(), os.getpid())
            _HELD.add(file)
            try:
                yield file.fileno()
            finally:
                _HELD.discard(file)
    finally:
        with contextlib.suppress(OSError, UserError), _lock(path, busy):
            path.unlink()  # unless another program holds it


def drawing_into(folder: Union[str, Path]) -> contextlib.AbstractContextManager:
    """Hold the lock of a folder of images; see :func:`locked`."""
    return locked(Path(folder) / '.images.lock', f'another process draws into {folder}; wait for '
                  'it, or choose another --out-dir')


def _lock(path: Path, busy: str) -> BinaryIO:
    """The open file of a lock that is held now."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        if path.is_symlink():
            raise UserError(f'{path}: a link in place of the lock; remove it')
        with disk_errors(path):
            file = os.fdopen(os.open(path, flags, 0o666), 'r+b', buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                holder = file.read(200).decode(errors='replace').strip()
            raise UserError(f'{busy}{holder and f" (running: {holder})"}') from None
        except OSError:  # of the file system
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # its holder has just removed it


def name_holder(lock: int, *processes: int) -> None:
    """Write to a lock's file which processes of this machine hold it."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f'host {platform.node()}, pid {", ".join(map(str, processes))}\n'.encode(),
                  0)


def _close_all() -> None:
    for file in _HELD:
        file.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_close_all)
