"""Writing a toytown folder in any layout: check the folder, distribute the work, resume."""

import json
import math
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from mmdet3d_plugin.errors import parse_errors

from ..common import alone_in
from .world import Town

VERSION = 1  # of the world: raised whenever the same settings give other files
FRAME_INTERVAL = 0.5  # seconds
FRAMES_PER_SEQUENCE = 12
_OWN = ('.tmp', '.lock')  # unfinished files and the lock


def make_settings(layout: str, frames: int, seed: int, image_size: Tuple[int, int],
                  scan_size: Tuple[int, int], sequences: Optional[int], supersample: int,
                  limit: Optional[int] = None) -> dict:
    """The settings of a folder; stored in it as ``metadata/toytown.json``.

    Raises:
        ValueError: for impossible settings.
    """
    if frames < 2:
        raise ValueError(
            f'toytown needs at least 2 frames (one to train, one to test), got {frames}'
        )
    if sequences is None:
        sequences = min(max(2, math.ceil(frames / FRAMES_PER_SEQUENCE)), limit or frames)
    if not 2 <= sequences <= frames:
        raise ValueError(
            f'sequences must be between 2 and the number of frames ({frames}), got {sequences}'
        )
    beams, columns = scan_size
    if beams < 2 or columns < 16:
        raise ValueError(f'a scan needs at least 2 beams and 16 columns, got {beams} x {columns}')
    if seed < 0 or supersample < 1:
        raise ValueError(f'seed must be >= 0 and supersample >= 1, got {seed} and {supersample}')
    return dict(
        layout=layout,
        version=VERSION,
        frames=int(frames),
        seed=int(seed),
        image_size=[int(v) for v in image_size],
        scan_size=[int(beams), int(columns)],
        sequences=int(sequences),
        supersample=int(supersample),
    )


def write(out_dir: Path, settings: dict, render: Callable[..., Dict[str, bytes]],
          finished: Callable[..., bool], workers: int, progress: bool) -> int:
    """Writes the frames of a folder that are not there yet.

    Args:
        out_dir: folder; new, empty, or started by this function with the same settings.
        settings: see :func:`make_settings`.
        render: picklable, (settings, sequence, frames of it, frame's number in the data set, and in
            its sequence) -> {path in the folder: bytes}.
        finished: (out_dir, settings, sequence, number, index) -> whether the frame is there.
        workers: processes; they change nothing in the files.
        progress: whether to show a progress bar.

    Returns:
        int: the number of frames written now.

    Raises:
        FileExistsError: if ``out_dir`` holds something else or has other settings.
        UserError: if another process writes there.
        ImportError: if trimesh, embreex or tqdm is missing.
        ChildProcessError: if a worker process dies.
    """
    _require('cv2', 'embreex', 'tqdm', 'trimesh')
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f'{out_dir} exists and is no folder; choose a new --out-dir')
    with alone_in(str(out_dir)):
        _check_run_dir(out_dir, settings)
        jobs = []
        for _, sequence, rows in plan(settings):
            todo = [row for row in rows if not finished(out_dir, settings, sequence, *row)]
            jobs += [(render, str(out_dir), settings, sequence, todo[i : i + FRAMES_PER_SEQUENCE],
                      len(rows)) for i in range(0, len(todo), FRAMES_PER_SEQUENCE)]
        _run(jobs, workers, settings['frames'], progress)
        return sum(len(job[4]) for job in jobs)


def _require(*modules):
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ImportError(f'toytown needs {", ".join(missing)}: pip install trimesh embreex tqdm')


def _check_run_dir(out_dir, settings):
    path = out_dir / 'metadata' / 'toytown.json'
    if path.exists():
        with parse_errors(f'{path}: unreadable settings', 'choose another --out-dir'):
            there = dict(json.loads(path.read_text()))
        other = sorted(k for k in settings.keys() | there.keys() if settings.get(k) != there.get(k))
        begun = any(p.is_file() and p != path and p.suffix not in _OWN for p in out_dir.rglob('*'))
        if other and begun:
            was, now = ({k: d.get(k) for k in other} for d in (there, settings))
            raise FileExistsError(
                f'{out_dir} was started with other settings: there {was}, asked {now}. '
                'Use the same settings to finish it, or another --out-dir'
            )
        for left in out_dir.rglob('.*.tmp'):
            left.unlink()
        if other:
            save(path, to_json(settings))
        return
    foreign = (p for p in out_dir.rglob('*') if p.is_file() and p.suffix not in _OWN)
    if any(foreign):
        raise FileExistsError(
            f'{out_dir} exists and is not a toytown folder; choose a new --out-dir'
        )
    save(path, to_json(settings))


def plan(settings: dict) -> List[Tuple[str, int, List[Tuple[int, int]]]]:
    """[(sequence name, sequence number, [(global frame number, frame number in sequence)])]"""
    ranges = np.array_split(np.arange(settings['frames']), settings['sequences'])
    return [
        (f'toytown_{settings["seed"]:04d}_{s:04d}', s, [(int(i), n) for n, i in enumerate(r)])
        for s, r in enumerate(ranges)
    ]


# ------------------------------------------------------------------ rendering jobs
def _run(jobs, workers, frames, progress):
    from tqdm import tqdm

    done = frames - sum(len(job[4]) for job in jobs)
    with tqdm(
        total=frames, initial=done, desc='toytown', unit='frame', disable=not progress
    ) as bar:
        if workers <= 1 or len(jobs) <= 1:
            for job in jobs:
                for _ in _render_job(job):
                    bar.update()
            return
        for count in _in_processes(jobs, workers):
            bar.update(count)


def _in_processes(jobs, workers):
    """Yields the number of frames of each finished job; a worker that dies raises an error."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context('spawn'), _start_worker)
    try:
        for job in as_completed([pool.submit(_render_all, job) for job in jobs]):
            yield job.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            'a worker process died (out of memory?); the same command, perhaps with fewer '
            '--workers, finishes the rest'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker():
    import signal

    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback


def _render_all(job):
    return sum(1 for _ in _render_job(job))


@lru_cache(maxsize=1)
def town(seed: int, sequence: int, length: int) -> Town:
    """The town of a sequence of ``length`` frames; the last one is kept."""
    return Town(seed, sequence, length * FRAME_INTERVAL)


def _render_job(job):
    """Renders and saves the frames of one job, yielding after each."""
    render, out_dir, settings, sequence, rows, length = job
    for number, index in rows:
        for path, data in render(settings, sequence, length, number, index).items():
            save(Path(out_dir) / path, data)
        yield number


def png(rgb: np.ndarray) -> bytes:
    """(h, w, 3) uint8 RGB as the bytes of a PNG file."""
    import cv2

    ok, data = cv2.imencode(
        '.png', np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 4]
    )
    if not ok:
        raise RuntimeError(f'OpenCV could not encode an image of shape {rgb.shape} as PNG')
    return data.tobytes()


def jpeg(rgb: np.ndarray) -> bytes:
    """(h, w, 3) uint8 RGB as the bytes of a JPEG file."""
    import cv2

    ok, data = cv2.imencode('.jpg', np.ascontiguousarray(rgb[..., ::-1]),
                            [cv2.IMWRITE_JPEG_QUALITY, 93])
    if not ok:
        raise RuntimeError(f'OpenCV could not encode an image of shape {rgb.shape} as JPEG')
    return data.tobytes()


def to_json(value: Any) -> bytes:
    """A value as the bytes of a JSON file."""
    return (json.dumps(value, indent=1) + '\n').encode()


def save(path: Path, data: bytes) -> None:
    """Writes bytes atomically: the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    part.unlink(missing_ok=True)
    with open(part, 'xb') as file:  # of a symbolic link the target would be overwritten
        file.write(data)
    os.replace(part, path)
