"""How long loading takes: each transform, the images' way to the network, the data loader."""
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterable, Iterator, Mapping, Optional

import cv2
import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..datasets import BEVDataset
from ..errors import UserError, build_from
from ..structures import read_image
from ..visualization.stages import transform_names
from .tables import STATISTICS, aligned, statistics


def time_transforms(dataset: BEVDataset, rounds: Iterable[int]) -> Iterator[Dict[str, np.ndarray]]:
    """Load frames on one thread, alternately, and time the reading of the info and each transform.

    Args:
        dataset: the data set; its transforms run as in training.
        rounds: indices of frames; those beyond the end start over.

    Yields:
        dict: name -> (2,) float64 seconds of one frame: by the clock, and of the processor.
    """
    steps = dict(zip(transform_names(dataset.pipeline.transforms), dataset.pipeline.transforms))
    with one_thread():
        for index in rounds:
            clock = [_clock()]
            results = dataset.get_data_info(index % len(dataset))
            clock.append(_clock())
            for step in steps.values():
                results = step(results)
                clock.append(_clock())
            yield dict(zip(['info', *steps], np.diff(clock, axis=0)))


def time_input(dataset: BEVDataset, preprocess: Callable[[dict, bool], dict],
               rounds: Iterable[int]) -> Iterator[Dict[str, float]]:
    """Take frames from the files of their images to what the network reads, on one thread.

    Args:
        dataset: the data set; its transforms for images run, not those for scans and targets.
        preprocess: the model's data preprocessor, on the CPU.
        rounds: indices of frames; those beyond the end start over.

    Yields:
        dict: seconds of the processor: ``decoding`` the files alone, which loading them includes;
        ``loading``, ``packing``, ``preprocessing``, and ``all``, the sum of these three.
    """
    transforms = dataset.pipeline.transforms
    load = [t for t in transforms if 'img' in getattr(t, 'provides', ('img', ))
            and not hasattr(t, 'grid')]
    with one_thread():
        for index in rounds:
            frame = dataset.get_data_info(index % len(dataset))
            clock = [time.process_time()]
            for camera in frame['images'].values():
                read_image(camera['img_path'])
            clock.append(time.process_time())
            for step in load:
                frame = step(frame)
                clock.append(time.process_time())
            preprocess(pseudo_collate([frame]), False)
            clock.append(time.process_time())
            decoding, *loading, packing, preprocessing = np.diff(clock).tolist()
            yield dict(decoding=decoding, loading=sum(loading), packing=packing,
                       preprocessing=preprocessing, all=clock[-1] - clock[1])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch and OpenCV use one thread."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _clock():
    return time.perf_counter(), time.process_time()


def time_loader(loader: DataLoader, batches: int) -> Iterator[float]:
    """Take batches as fast as they come, epoch after epoch.

    Args:
        loader: with any number of workers.
        batches: how many to time. As many as there are workers (at least one) come before.

    Yields:
        float: seconds since the batch before; the first is timed from the last one before it.
    """
    before, taken = max(loader.num_workers, 1), 0
    clock = time.perf_counter()
    while taken < before + batches:
        for _ in loader:
            now = time.perf_counter()
            taken += 1
            if taken > before:
                yield now - clock
            clock = now
            if taken == before + batches:
                return


def describe_data(cfg: Config, split: str, frames: int, warmup: int) -> dict:
    """Milliseconds of each transform and of a frame, and the loader's throughput.

    Args:
        cfg: with the split's data loader.
        split: ``'train'``, ``'val'`` or ``'test'``.
        frames: to measure.
        warmup: frames before.

    Raises:
        UserError: The config has no such data loader.
    """
    loader_cfg = cfg.get(f'{split}_dataloader')
    if not loader_cfg:
        raise UserError(f'config {cfg.filename}: it has no {split}_dataloader')
    dataset = build_from(DATASETS, loader_cfg.dataset, f'{split}_dataloader.dataset')
    rounds = tqdm(range(warmup + frames), 'transforms', unit='frame')
    spent = list(time_transforms(dataset, rounds))[warmup:]
    parts = {name: 1000 * np.array([times[name] for times in spent]) for name in spent[0]}
    parts['all'] = sum(parts.values())
    whole = parts['all'][:, 0].sum()
    loader = Runner.build_dataloader(loader_cfg, seed=0)
    batches = -(-frames // loader.batch_size)
    seconds = list(tqdm(time_loader(loader, batches), 'data loader', batches, unit='batch'))
    return dict(
        input=describe_input(cfg, dataset, frames, warmup),
        frames_on_disk=len(dataset), workers=loader.num_workers, batch_size=loader.batch_size,
        frames_per_second=batches * loader.batch_size / sum(seconds),
        milliseconds={name: dict(statistics(ms[:, 0]), cpu=float(np.median(ms[:, 1])),
                                 share=ms[:, 0].sum() / whole) for name, ms in parts.items()})


def describe_input(cfg: Config, dataset: BEVDataset, frames: int, warmup: int) -> Optional[dict]:
    """Milliseconds from the images' files to the network's input; None without images."""
    model = cfg.get('model') or {}
    preprocessor = model.get('data_preprocessor') or model.get('student', {}).get(
        'data_preprocessor')
    if not preprocessor or not dataset.get_data_info(0).get('images'):
        return None
    preprocess = build_from(MODELS, preprocessor, 'model.data_preprocessor')
    spent = list(time_input(dataset, preprocess, range(warmup + frames)))[warmup:]
    return {part: 1000 * float(np.median([times[part] for times in spent])) for part in spent[0]}


def text_of_data(report: Mapping) -> str:
    """The table of each config and how it was made."""
    texts = []
    for name, data in report['data'].items():
        rows = [[name, *STATISTICS, 'cpu', 'share']]
        rows += [[part, *(f'{ms[key]:.2f}' for key in (*STATISTICS, 'cpu')),
                  f'{100 * ms["share"]:.0f} %'] for part, ms in data['milliseconds'].items()]
        texts.append(aligned(rows))
        if data['input']:
            texts.append('From the images to the network\'s input {all:.1f} ms of the processor: '
                         'loading {loading:.1f} (of it decoding {decoding:.1f}), packing '
                         '{packing:.1f}, preprocessing {preprocessing:.1f}.'.format_map(
                             data['input']))
        texts.append(f'{data["workers"]} workers, batch {data["batch_size"]}: '
                     f'{data["frames_per_second"]:.1f} frames/s through the data loader.')
    return '\n\n'.join([*texts, (
        f'Milliseconds a frame, one thread ({report["machine"]}), {report["frames"]} frames of '
        f'{report["split"]} after {report["warmup"]} to warm up; cpu is the median without '
        'waiting for disk and other processes.')]) + '\n'
