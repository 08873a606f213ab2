"""What every converter needs: safe split files, resumable work with progress, one way to write."""

import json
import os
import pickle
import struct
from datetime import datetime, timezone
from multiprocessing import get_all_start_methods, get_context

import numpy as np
from tqdm import tqdm

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.structures import save_infos

_NUMPY = {(f'numpy.{core}.{module}', name) for core in ('core', '_core') for module, name in
          (('multiarray', '_reconstruct'), ('numeric', '_frombuffer'))}
_SAFE = _NUMPY | {('numpy', 'ndarray'), ('numpy', 'dtype'), ('_codecs', 'encode')}


class _SplitUnpickler(pickle.Unpickler):
    """Reads containers and numpy arrays; any other class or function is refused."""

    def find_class(self, module, name):
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f'it refers to {module}.{name}')
        return super().find_class(module, name)


def read_split(path) -> dict:
    """Read a split file: a JSON object of lists, or a pickled dict of integer arrays.

    Only numpy arrays of integers are unpickled, so a foreign pickle cannot run code. A ``.json``
    file of the same name is taken where the ``.pkl`` is missing.

    Args:
        path: ``.pkl`` or ``.json`` file.

    Returns:
        dict: name -> (N,) int64.

    Raises:
        UserError: the file is missing, unreadable, or holds anything else.
    """
    stem, path = os.path.splitext(path)[0], str(path)
    path = next((p for p in (path, f'{stem}.json') if os.path.isfile(p)), None)
    if path is None:
        raise UserError(f'{stem}.pkl (or .json): no such split file; it belongs to the data set')
    try:
        with open(path, 'rb') as file:
            raw = json.load(file) if path.endswith('.json') else _SplitUnpickler(file).load()
        arrays = {name: np.asarray(value) for name, value in raw.items()}
    except Exception as error:
        raise UserError(f'{path}: not a readable split file: {error}') from error
    for name, array in arrays.items():
        if array.ndim != 1 or (array.size and array.dtype.kind not in 'iu'):
            raise UserError(f'{path}: {name}: expected a list of integers, got {array.dtype} of '
                            f'shape {array.shape}')
    return {name: array.astype(np.int64) for name, array in arrays.items()}


def picture_size(path) -> tuple:
    """(height, width) of a complete PNG, from its first and last bytes.

    Raises:
        UserError: the file is missing, empty, cut, or no PNG.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(24)
            file.seek(0, os.SEEK_END)
            file.seek(-min(12, file.tell()), os.SEEK_END)
            tail = file.read()
    except OSError as error:
        raise UserError(f'{path}: cannot read picture: {error.strerror}') from error
    if not head.startswith(b'\x89PNG\r\n\x1a\n') or len(head) < 24 or tail[4:8] != b'IEND':
        raise UserError(f'{path}: unreadable picture: not a complete PNG file '
                        f'({os.path.getsize(path)} bytes); copy it again')
    width, height = struct.unpack('>II', head[16:24])
    return height, width


def read_lines(path) -> list:
    """Lines of a text file without line ends; trailing empty lines are dropped.

    Raises:
        UserError: the file is missing or no text.
    """
    try:
        with open(path, encoding='utf-8') as file:
            return file.read().rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot read: {error}') from error


def parse_time(text: str, where: str) -> float:
    """Seconds since 1970 from ``YYYY-MM-DD HH:MM:SS.fffffffff`` (UTC) or a plain number.

    Raises:
        UserError: neither of the two.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        whole, _, fraction = text.strip().partition('.')
        moment = datetime.strptime(whole, '%Y-%m-%d %H:%M:%S').replace(tzinfo=timezone.utc)
        return moment.timestamp() + float(f'0.{fraction or 0}')
    except ValueError as error:
        raise UserError(f'{where}: expected seconds or YYYY-MM-DD HH:MM:SS.fffffffff, got '
                        f'{text!r}') from error


def stamp(*paths) -> tuple:
    """Size and modification time of files: changes when one of them is replaced."""
    stats = [os.stat(path) if os.path.exists(path) else None for path in paths]
    return tuple((stat.st_size, stat.st_mtime_ns) if stat else None for stat in stats)


def resumable_map(function, keys, journal, stamps, workers: int = 1, desc: str = '') -> list:
    """``[function(key) for key in keys]``, in processes, with progress, continued after a stop.

    Finished results are appended to ``journal``; a later call takes them from there if the stamp of
    the key is unchanged. The caller removes the journal once its own output is written. Pickled,
    the list is the same to the byte for any number of processes and stops.

    Args:
        function: picklable, key -> picklable result.
        keys: hashable.
        journal: path of the journal file, or None to remember nothing.
        stamps: key -> hashable that changes when the inputs of the key change.
        workers: processes; 1 = this one.
        desc: title of the progress bar.

    Returns:
        list: results in the order of ``keys``.
    """
    done = _read_journal(journal) if journal else {}
    marks = {key: stamps(key) for key in keys}
    results = {key: done[key][1] for key in keys if key in done and done[key][0] == marks[key]}
    todo = [key for key in keys if key not in results]
    with tqdm(total=len(keys), initial=len(results), desc=desc, unit='frame') as bar, \
            open(journal or os.devnull, 'ab') as log:
        for key, result in zip(todo, _imap(function, todo, workers)):
            record = pickle.dumps((key, marks[key], result))
            log.write(record)
            results[key] = pickle.loads(record)[2]  # the same objects, whoever made them
            bar.update()
    return [results[key] for key in keys]


def _read_journal(path) -> dict:
    """Complete records; a half-written last one is cut off."""
    done = {}
    if os.path.exists(path):
        with open(path, 'rb+') as file:
            try:
                while True:
                    end = file.tell()
                    key, mark, result = pickle.load(file)
                    done[key] = mark, result
            except Exception:
                file.truncate(end)
    return done


def _imap(function, keys, workers):
    if workers <= 1 or len(keys) <= 1:
        yield from map(function, keys)
        return
    method = 'fork' if 'fork' in get_all_start_methods() else 'spawn'
    with get_context(method).Pool(min(workers, len(keys))) as pool:
        yield from pool.imap(function, keys, chunksize=max(1, min(32, len(keys) // workers)))


def write_infos(infos: dict, path: str, check: bool = False, files=None,
                workers: int = 1) -> None:
    """Write an info file atomically and remove the journals of its conversion.

    Args:
        infos: what to write.
        path: the file; its journals are ``<path>.journal`` and ``<path>.check.journal``.
        check: decode the files of every frame, then read the info file back and compare.
        files: frame -> paths of its pictures and scans, for the check.
        workers: processes of the check.

    Raises:
        UserError: the infos break the schema, a file cannot be decoded, or what was read differs.
    """
    journals = f'{path}.journal', f'{path}.check.journal'
    if check and files:
        resumable_map(check_files, [tuple(files(frame)) for frame in infos['data_list']],
                      journals[1], lambda paths: stamp(*paths), workers, 'check')
    save_infos(infos, path)
    if check:
        with open(path, 'rb') as file:
            if file.read() != pickle.dumps(infos, protocol=4):
                raise UserError(f'{path}: reads back differently from what was written; is the '
                                'disk full?')
    for journal in journals:
        if os.path.exists(journal):
            os.remove(journal)


def check_files(paths) -> bool:
    """Decode pictures (.png, .jpg) and float32 scans (.bin).

    Raises:
        UserError: a picture cannot be decoded or a scan has values that are not finite.
    """
    import cv2
    for path in paths:
        if path.endswith(('.png', '.jpg')) and cv2.imread(path, cv2.IMREAD_COLOR) is None:
            raise UserError(f'{path}: unreadable picture: it cannot be decoded; copy it again')
        if path.endswith('.bin'):
            bad = np.count_nonzero(~np.isfinite(np.fromfile(path, '<f4')))
            if bad:
                raise UserError(f'{path}: {bad} values are not finite')
    return True
