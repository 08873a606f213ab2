"""Common to all converters: reading split files, resumable conversion, writing info files."""

import contextlib
import hashlib
import io
import json
import math
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime, timezone
from functools import lru_cache, partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from tqdm import tqdm

from mmdet3d_plugin import geometry, structures
from mmdet3d_plugin.checkpoints import (
    disk_errors,
    file_sha256,
    remove_temporary,
    source_sha256,
)
from mmdet3d_plugin.errors import FrameError, UserError, did_you_mean, parse_errors
from mmdet3d_plugin.geometry import BEVGrid, raster, rigid
from mmdet3d_plugin.locking import locked
from mmdet3d_plugin.structures import (
    check_image,
    check_points,
    lidar2global,
    load_plain,
    read_image,
    save_infos,
)

MESSAGES = 20
"""Bad frames of a split that are reported one by one; the others are only counted."""


def read_split(path: str) -> Dict[str, np.ndarray]:
    """Read a split file: a JSON object of lists, or a pickled dict of integer arrays.

    Only numpy arrays of integers are unpickled, so a pickle cannot run code. A ``.json``
    file of the same name is read where the ``.pkl`` is missing.

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
    with parse_errors(f'{path}: not a readable split file', 'download it again, or write '
                      f'{os.path.basename(stem)}.json in its place'), open(path, 'rb') as file:
        raw = json.load(file) if path.endswith('.json') else load_plain(file)
        items = {str(name): value for name, value in raw.items()}
    return {name: _integers(value, f'{path}: {name:.80}') for name, value in items.items()}


def _integers(value, where) -> np.ndarray:
    """(N,) int64 of a list of integers or of such an array."""
    if isinstance(value, list) and set(map(type, value)) <= {int}:
        value = np.array(value or (), np.int64 if max(map(abs, value), default=0) < 1 << 62 else
                         object)
    if not isinstance(value, np.ndarray) or value.ndim != 1 or (
            value.size and value.dtype.kind not in 'iu'):
        raise UserError(f'{where}: expected a list of integers, got {type(value).__name__} of '
                        f'{getattr(value, "dtype", "other values")}')
    return value.astype(np.int64)


def image_size(path: str) -> Tuple[int, int]:
    """(height, width) of a complete PNG, from its first and last bytes.

    Raises:
        FrameError: the file is missing, empty, cut, or no PNG.
    """
    size = check_image(path)
    with open(path, 'rb') as file:
        if file.read(2) == b'\xff\xd8':
            raise FrameError(f'{path}: a JPEG file, expected a PNG file; copy it again', 'image')
    return size


def read_json(path: str) -> dict:
    """A JSON file that holds an object.

    Raises:
        UserError: the file is missing, no JSON, or holds something else.
    """
    with parse_errors(f'{path}: cannot read'), open(path, encoding='utf-8-sig') as file:
        content = json.load(file)
    if not isinstance(content, dict):
        raise UserError(f'{path}: expected a JSON object, got {type(content).__name__}')
    return content


def read_lines(path: str) -> List[str]:
    """Lines of a text file without line ends; trailing empty lines are dropped.

    Raises:
        UserError: the file is missing or no text.
    """
    with parse_errors(f'{path}: cannot read'), open(path, encoding='utf-8-sig') as file:
        return file.read().rstrip().splitlines()


def parse_time(text: str, where: str) -> float:
    """Seconds since 1970 from ``YYYY-MM-DD HH:MM:SS.fffffffff`` (UTC) or a plain number.

    Raises:
        UserError: neither of the two.
    """
    try:
        seconds = float(text)
        if math.isfinite(seconds):
            return seconds
    except ValueError:
        pass
    try:
        date, _, fraction = text.strip().partition('.')
        moment = datetime.strptime(date, '%Y-%m-%d %H:%M:%S').replace(tzinfo=timezone.utc)
        return moment.timestamp() + float(f'0.{fraction or 0}')
    except ValueError as error:
        raise UserError(f'{where}: expected seconds or YYYY-MM-DD HH:MM:SS.fffffffff, got '
                        f'{text!r}') from error


def stamp(*paths: str) -> tuple:
    """Size and modification time of files: changes when one of them is replaced."""
    stats = [os.stat(path) if os.path.exists(path) else None for path in paths]
    return tuple((stat.st_size, stat.st_mtime_ns) if stat else None for stat in stats)


@contextlib.contextmanager
def part_of_frame(kind: str) -> Iterator[None]:
    """Errors of the user in this block are of one frame, and counted as ``kind``."""
    try:
        yield
    except FrameError:
        raise
    except UserError as error:
        raise FrameError(str(error), kind) from error


class Frames:
    """The frames of a split, in order, kept on disk; one at a time is in memory.

    Attributes:
        keys: of the frames.
        skipped: what was bad -> number of frames that were skipped for it.
        cells: label -> number of BEV cells, where they were counted.
    """

    def __init__(self, file: Any, records: Dict[Any, Tuple[int, dict]], skipped: Dict[str, int],
                 finalize: Optional[Callable[[int, dict], None]]) -> None:
        self._file, self._finalize = file, finalize
        self._places = [place for place, _ in records.values()]
        self.keys, self.skipped, self.cells = list(records), skipped, Counter()
        for _, cells in records.values():
            self.cells.update(cells)

    def __len__(self):
        return len(self._places)

    def __iter__(self):
        with open(self._file if isinstance(self._file, str) else self._file.name, 'rb') as file:
            for n, place in enumerate(self._places):
                file.seek(place)
                frame = _read_record(file)[2]
                if self._finalize:
                    self._finalize(n, frame)
                yield frame


def convert_frames(read: Callable[[Any], dict], keys: Sequence, journal: Optional[str] = None,
                   stamps: Callable[[Any], Any] = lambda key: None, workers: int = 1,
                   desc: str = '', files: Optional[Callable[[dict], List[str]]] = None,
                   strict: bool = False, finalize: Optional[Callable[[int, dict], None]] = None,
                   rasterizer: Optional[str] = None) -> Frames:
    """Read the frames of a split, in processes, with progress, continued after a stop.

    Finished frames are appended to ``journal``; a later call takes them from there if the stamp of
    the key, the arguments of ``read`` and the code are unchanged. The caller removes the journal
    once its own output is written. The result is the same to the byte for any number of processes
    and stops.

    A bad frame (:class:`FrameError`) is skipped and counted. Where many are bad (more than ten,
    and more than one in ten) or all, the set is bad: that is an error.

    Args:
        read: picklable, key -> frame of plain values; a ``partial`` of root and settings.
        keys: hashable, plain values, each once.
        journal: path of the journal file, default a temporary one.
        stamps: key -> anything that changes when the inputs of the key change.
        workers: processes; 1 = this one.
        desc: title of the progress bar, the split.
        files: picklable, frame -> paths of its images and scans, which are then decoded.
        strict: the first bad frame is an error.
        finalize: (number of the frame in the result, frame) -> None, completes a frame in place.
        rasterizer: method of RasterizeBEV: count the BEV cells that it draws.

    Returns:
        Frames: those of ``keys`` in their order, without the bad ones.

    Raises:
        UserError: as above; the disk is full; a worker process died.
    """
    file = journal or tempfile.NamedTemporaryFile(prefix='frames')  # noqa: SIM115
    path = file if journal else file.name
    way = code_sha256(), files is not None, rasterizer, getattr(read, 'args', ())
    marks = {key: hashlib.sha1(repr((way, stamps(key))).encode()).hexdigest() for key in keys}
    done = {key: record for key, (mark, *record) in _read_journal(path).items()
            if marks.get(key) == mark}
    todo = [key for key in keys if key not in done]
    bad, attempt = Counter(), partial(_attempt, read, files, rasterizer)
    with tqdm(total=len(marks), initial=len(done), desc=desc, unit='frame') as bar, \
            _appended(path) as log:
        for key, result in zip(todo, _imap(attempt, todo, workers)):
            bar.update()
            if isinstance(result, FrameError):
                if strict:
                    raise result
                bad[result.kind] += 1
                _leave_out(desc, result, bad.total(), len(marks))
                continue
            frame, cells = result
            with disk_errors(path):
                done[key] = log.tell(), cells
                log.write(_record((key, marks[key], frame, cells)))
    return Frames(file, {key: done[key] for key in keys if key in done}, dict(sorted(bad.items())),
                  finalize)


@lru_cache(maxsize=1)
def code_sha256() -> str:
    """Of the code that makes frames."""
    return source_sha256(*(Path(module).parent for module in (
        __file__, geometry.__file__, structures.__file__)))


def _attempt(read, files, rasterizer, key):
    """A frame and its cells, or its error."""
    try:
        frame = read(key)
        if files:
            check_files(files(frame), frame['lidar_points']['num_pts_feats'])
        return frame, count_cells(frame, rasterizer) if rasterizer else {}
    except FrameError as error:
        return error


BEV = dict(x_range=[-50, 50], y_range=[-50, 50], resolution=0.5)
"""The map whose cells are counted: 100 m around the car."""


def count_cells(frame: dict, rasterizer: str) -> Dict[int, int]:
    """Label -> number of BEV cells of a frame; see :func:`geometry.raster.rasterize`."""
    grid = BEVGrid(BEV['x_range'], BEV['y_range'], BEV['resolution'])
    boxes = np.array([i['bbox_3d'] for i in frame['instances']], np.float64).reshape(-1, 7)
    labels = np.array([i['bbox_label_3d'] for i in frame['instances']], np.int64)
    up = (0.0, 0.0, 1.0)
    if 'lidar2ego' in frame['lidar_points']:  # the LiDAR frame has other axes
        boxes = rigid.transform_boxes(np.array(frame['lidar_points']['lidar2ego']), boxes,
                                      lidar2global(frame)[2, :3])
        up = np.array(frame['ego2global'])[2, :3]
    maps = raster.rasterize(boxes, labels, grid, labels.max(initial=0) + 1, rasterizer, up=up)
    return {label: int(n) for label, n in enumerate(maps['seg'].sum((1, 2))) if n}


def bev_metainfo(frames: Frames, categories: Dict[str, int], rasterizer: Optional[str]) -> dict:
    """``bev`` of the metainfo: BEV cells of each class; {} without a rasterizer."""
    cells = {name: frames.cells[label] for name, label in categories.items()}
    return dict(bev=dict(BEV, rasterizer=rasterizer, cells=cells)) if rasterizer else {}


def _leave_out(desc, error, bad, total):
    """Report a bad frame, or stop where there are too many."""
    if bad > max(10, total // 10) or bad == total:
        raise UserError(f'{desc}: {bad} of {total} frames are bad: the data set is incomplete or '
                        f'damaged; the last one: {error}') from error
    if bad <= MESSAGES:
        tqdm.write(f'{desc}: frame left out ({bad} so far): {error}', file=sys.stderr)


@contextlib.contextmanager
def _appended(path):
    """Open a file to append to; errors while it is closed do not hide the first one."""
    with disk_errors(path):
        log = open(path, 'ab', opener=_no_link)
    try:
        yield log
    except BaseException:
        with contextlib.suppress(OSError):
            log.close()
        raise
    with disk_errors(path):
        log.close()


def _read_journal(path) -> dict:
    """Key -> mark, place and cells of the complete records; an incomplete last one is removed."""
    done = {}
    if os.path.lexists(path):
        with disk_errors(path), open(path, 'rb+', opener=_no_link) as file:
            end = 0
            try:
                while True:
                    end = file.tell()
                    key, mark, _, cells = _read_record(file)
                    done[key] = mark, end, cells
            except Exception:
                file.truncate(end)
    return done


def _record(values) -> bytes:
    """An entry of a journal: its length (8 bytes) and its pickle."""
    content = pickle.dumps(values)
    return len(content).to_bytes(8, 'little') + content


def _read_record(file) -> tuple:
    """The next entry of a journal."""
    content = file.read(int.from_bytes(file.read(8), 'little'))
    return load_plain(io.BytesIO(content))


def _no_link(path, flags):
    """Open a file, but no symbolic link: its target is another's."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _imap(function, keys, workers):
    """``map`` in processes; a worker that dies raises an error."""
    if workers <= 1 or len(keys) <= 1:
        yield from map(function, keys)
        return
    method = 'fork' if 'fork' in get_all_start_methods() else 'spawn'
    pool = ProcessPoolExecutor(min(workers, len(keys)), get_context(method), _start_worker,
                               (os.getpid(),))
    try:
        yield from pool.map(function, keys, chunksize=max(1, min(32, len(keys) // workers)))
    except BrokenProcessPool as error:
        raise UserError('a worker process died (out of memory?); the same command, perhaps with '
                        'fewer --workers, finishes the rest') from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent):
    """Let a worker end when its parent has ended, and at Ctrl-C without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def published(out_dir: str) -> Iterator[Callable[[str], str]]:
    """Files of a conversion get their names together at its end; of one that failed none is left.

    Args:
        out_dir: where they go; one conversion at a time writes there.

    Yields:
        callable: path -> where to write the file until then. The journal of an info file,
        ``<path>.journal``, stays until the file has its name, so that the next run goes on from it.

    Raises:
        UserError: another conversion writes there.
    """
    with alone_in(out_dir):
        yield from _published()


@contextlib.contextmanager
def alone_in(out_dir: str) -> Iterator[None]:
    """Let one conversion at a time write to a folder, and remove what killed ones left there.

    Raises:
        UserError: another one does.
    """
    with locked(os.path.join(out_dir, '.conversion.lock'), f'another conversion writes to '
                f'{out_dir}; wait for it, or choose another --out-dir'):
        remove_temporary(out_dir)
        yield


def _published() -> Iterator[Callable[[str], str]]:
    paths: Dict[str, str] = {}

    def pending(path: str) -> str:
        folder, name = os.path.split(path)
        remove_temporary(folder)  # of a killed conversion, in a folder of its own
        paths[path] = os.path.join(folder, f'.{name}.pending.tmp')
        return paths[path]

    try:
        yield pending
        for path, temporary in paths.items():
            with disk_errors(path):
                os.replace(temporary, path)
            if os.path.exists(f'{path}.journal'):
                os.remove(f'{path}.journal')
    finally:
        for temporary in paths.values():
            if os.path.exists(temporary):
                os.remove(temporary)


def check_replaced(path: str, metainfo: dict, overwrite: bool) -> None:
    """Check that an info file which is to be written replaces none of another version.

    Args:
        path: of the file.
        metainfo: of the new one.
        overwrite: replace it anyway.

    Raises:
        UserError: there is one of another data set, version or choice of frames.
    """
    if overwrite or not os.path.isfile(path):
        return
    try:
        there = structures.load_metainfo(path)
    except UserError:
        return  # damaged: what is written replaces it
    other = [key for key in ('dataset', 'version', 'conversion')
             if there.get(key) != metainfo.get(key)]
    if other:
        differences = ', '.join(f'{key} {there.get(key)}, now {metainfo.get(key)}'
                                for key in other)
        raise UserError(f'{path} is of another conversion ({differences}); choose another '
                        '--out-dir, or replace it with --overwrite')


def check_splits(splits: Iterable[str], known: Iterable[str]) -> None:
    """Check the names of the splits to write.

    Raises:
        UserError: one is unknown.
    """
    for split in splits:
        if split not in known:
            raise UserError(f'--splits {split}: no such split{did_you_mean(split, known)}')


def other_format(folder: str, suffix: str) -> str:
    """A hint for an error: the images of a folder are of another format than ``suffix``."""
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    found = {os.path.splitext(name)[1].lower() for name in names} & {'.jpg', '.jpeg', '.png'}
    return '' if not found or suffix in found else (
        f'; {folder} has {", ".join(sorted(found))} files where {suffix} is expected: download the '
        f'original images, or convert them to {suffix}')


def write_infos(infos: dict, path: str, check: bool = False) -> None:
    """Write an info file atomically.

    Args:
        infos: what to write.
        path: the file.
        check: read the file back and compare.

    Raises:
        UserError: the infos break the schema, the disk is full, or what was read differs.
    """
    digest = save_infos(infos, path)
    if check:
        if file_sha256(path) != digest:
            raise UserError(f'{path}: reads back differently from what was written; check the disk')


def summarize(infos: dict, **more: Callable[[dict], int]) -> Tuple[dict, Counter, Counter]:
    """Count in one pass over the frames.

    Args:
        infos: what is written; its ``data_list`` may be any collection.
        **more: name -> function of a frame that gives a number.

    Returns:
        tuple: dict of the counts that every data set has; Counter of the labels; Counter of
        ``more``.
    """
    data, scenes, labels, counts, before = infos['data_list'], set(), Counter(), Counter(), {}
    empty = late = 0
    for frame in data:
        scene = frame['scene_token']
        scenes.add(scene)
        labels.update(instance['bbox_label_3d'] for instance in frame['instances'])
        counts.update({name: count(frame) for name, count in more.items()})
        empty += not frame['instances']
        late += frame['timestamp'] <= before.get(scene, -math.inf)
        before[scene] = frame['timestamp']
    meta = infos['metainfo']
    base = dict(frames=len(data), sequences=len(scenes), empty_frames=empty, out_of_order=late,
                skipped=meta.get('skipped', {}))
    if 'bev' in meta:
        base['cells'] = {f'{meta["bev"]["rasterizer"]} rasterizer': meta['bev']['cells']}
    return base, labels, counts


def check_files(paths: Iterable[str], features: int) -> None:
    """Decode the images and read the scans (.bin) of a frame.

    Args:
        paths: of PNG, JPEG and float32 files.
        features: values of a point.

    Raises:
        FrameError: an image cannot be decoded; a scan has no return or values that are not finite.
    """
    for path in paths:
        if path.endswith('.bin'):
            check_points(np.fromfile(path, '<f4').reshape(-1, features), path)
            continue
        read_image(path)
