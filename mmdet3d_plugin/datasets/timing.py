"""How long the parts of a pipeline take."""
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterable, Iterator, List

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from .bev_dataset import BEVDataset


def names_of(transforms: Iterable) -> List[str]:
    """The class of each transform, with those it wraps, and a number where it stands twice."""
    names: List[str] = []
    for transform in transforms:
        name = type(transform).__name__
        inner = [type(t).__name__ for t in getattr(transform, 'transforms', ())]
        name += f'({", ".join(inner)})' if inner else ''
        count = sum(n.split(' #')[0] == name for n in names)
        names.append(f'{name} #{count + 1}' if count else name)
    return names


def time_transforms(dataset: BEVDataset, turns: Iterable[int]) -> Iterator[Dict[str, np.ndarray]]:
    """Load frames on one thread, in turn, and time the reading of the info and each transform.

    Args:
        dataset: the data set; its transforms run as in training.
        turns: indices of frames; those beyond the end start over.

    Yields:
        dict: name -> (2,) float64 seconds of one frame: by the clock, and of the processor.
    """
    steps = dict(zip(names_of(dataset.pipeline.transforms), dataset.pipeline.transforms))
    with one_thread():
        for index in turns:
            clock = [_clock()]
            results = dataset.get_data_info(index % len(dataset))
            clock.append(_clock())
            for step in steps.values():
                results = step(results)
                clock.append(_clock())
            yield dict(zip(['info', *steps], np.diff(clock, axis=0)))


def time_input(dataset: BEVDataset, preprocess: Callable[[dict, bool], dict],
               turns: Iterable[int]) -> Iterator[Dict[str, float]]:
    """Take frames from the files of their images to what the network reads, on one thread.

    Args:
        dataset: the data set; its transforms for images run, not those for scans and targets.
        preprocess: the model's data preprocessor, on the CPU.
        turns: indices of frames; those beyond the end start over.

    Yields:
        dict: seconds of the processor: ``decoding`` the files alone, which loading them includes;
        ``loading``, ``packing``, ``preprocessing``, and ``all``, the sum of these three.
    """
    transforms = dataset.pipeline.transforms
    load = [t for t in transforms if 'img' in getattr(t, 'provides', ('img', ))
            and not hasattr(t, 'grid')]
    with one_thread():
        for index in turns:
            frame = dataset.get_data_info(index % len(dataset))
            clock = [time.process_time()]
            for camera in frame['images'].values():
                cv2.imread(camera['img_path'])
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
