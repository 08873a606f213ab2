"""How long training steps take, of a student by itself and of its distillation."""
import copy
import time
from typing import Dict, Iterable, Iterator, Mapping, Optional, Sequence

import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner
from tqdm import tqdm

from ..distillation import Distiller
from ..errors import build_from
from ..structures import fields
from .data_loading import time_loader
from .memory import peak_resident
from .tables import aligned, now


class TrainingStep:
    """A model, its optimiser and a few batches in memory; calling it is a step of training.

    Args:
        model (BaseModel): In training mode.
        optim_wrapper (dict): Config of its optimiser.
        batches (list[dict]): Collated; taken alternately.
    """

    def __init__(self, model: BaseModel, optim_wrapper: dict, batches: Sequence[dict]):
        self.model, self.batches = model.train(), batches
        self.optim_wrapper: OptimWrapper = build_optim_wrapper(model, optim_wrapper)

    def __call__(self, index: int) -> Dict[str, float]:
        """One step; its seconds of the processor and by the clock, a GPU's work included."""
        start = time.process_time(), now()
        self.model.train_step(self.batches[index % len(self.batches)], self.optim_wrapper)
        return dict(clock=now() - start[1], cpu=time.process_time() - start[0])


def training_steps(cfg: Config, batches: Sequence[dict],
                   device: Optional[str] = None) -> Dict[str, TrainingStep]:
    """The steps to compare: of a distillation also its student's own, which reads images alone.

    Weights are random, a teacher's too: no checkpoint is read.

    Args:
        cfg (Config): Of a model that trains.
        batches (list[dict]): Collated frames of its training data.
        device (str, optional): Where they run. Defaults to the GPU if there is one.

    Returns:
        dict: ``student`` and ``distillation``, or ``model``.
    """
    model = build_from(MODELS, copy.deepcopy(cfg.model), 'model').to(device or get_device())
    if not isinstance(model, Distiller):
        return dict(model=TrainingStep(model, cfg.optim_wrapper, batches))
    model.build_teachers()
    model.to(device or get_device())
    student = copy.deepcopy(model.student)
    images = [dict(batch, inputs={fields.IMG: batch['inputs'][fields.IMG]}) for batch in batches]
    return dict(student=TrainingStep(student, cfg.optim_wrapper, images),
                distillation=TrainingStep(model, cfg.optim_wrapper, batches))


def time_steps(steps: Dict[str, TrainingStep],
               rounds: Iterable[int]) -> Iterator[Dict[str, Dict[str, float]]]:
    """Take the steps alternately, so that a busy machine slows all of them alike.

    Yields:
        dict: by the steps' names ``cpu`` and ``clock``, seconds.
    """
    for index in rounds:
        yield {name: step(index) for name, step in steps.items()}


def describe_steps(spent: Sequence[Dict[str, Dict[str, float]]],
                   on_gpu: bool = False) -> Dict[str, Dict[str, float]]:
    """Medians by the steps' names: ``cpu`` and ``clock`` in ms, and ``ratio`` to the first step.

    The ratio is taken round by round, of processor times, which a busy machine does not change; on
    a GPU of times by the clock.
    """
    first, compared = next(iter(spent[0])), 'clock' if on_gpu else 'cpu'
    return {name: dict(
        **{kind: 1000 * float(np.median([times[name][kind] for times in spent]))
           for kind in ('cpu', 'clock')},
        ratio=float(np.median([times[name][compared] / times[first][compared]
                               for times in spent])))
        for name in spent[0]}


def describe_training(cfg: Config, rounds: int, warmup: int, device: Optional[str] = None) -> dict:
    """Times of the steps, frames a second of them and of two loading workers, peak memory.

    The memory is that of the GPU where the steps run on one, else of the process.
    """
    on_gpu = torch.device(device or get_device()).type == 'cuda'
    loader_cfg = dict(cfg.train_dataloader, num_workers=2, persistent_workers=False)
    size = loader_cfg['batch_size']
    dataset = build_from(DATASETS, loader_cfg['dataset'], 'train_dataloader.dataset')
    batches = [pseudo_collate([dataset[(size * n + i) % len(dataset)] for i in range(size)])
               for n in range(2)]
    steps = training_steps(cfg, batches, device)
    spent = list(time_steps(steps, tqdm(range(warmup + rounds), 'training', unit='round')))[warmup:]
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_resident()
    loader = Runner.build_dataloader(loader_cfg, seed=0)
    loading = list(tqdm(time_loader(loader, rounds), 'data loader', rounds, unit='batch'))
    return dict(batch_size=size, steps=describe_steps(spent, on_gpu), peak_mib=peak,
                loader_frames_per_second=rounds * size / sum(loading))


def text_of_training(report: Mapping) -> str:
    """The table of all configs and how it was made."""
    rows = [['model', 'step', 'cpu ms', 'clock ms', 'ratio', 'frames/s', 'loader frames/s',
             'batch']]
    for name, entry in report['training'].items():
        rows += [[name, part, f'{ms["cpu"]:.0f}', f'{ms["clock"]:.0f}', f'{ms["ratio"]:.2f}',
                  f'{1000 * entry["batch_size"] / ms["clock"]:.1f}',
                  f'{entry["loader_frames_per_second"]:.1f}', str(entry['batch_size'])]
                 for part, ms in entry['steps'].items()]
    peak = max(entry['peak_mib'] for entry in report['training'].values())
    return (f'{aligned(rows)}\n\nMedians of {report["frames"]} rounds after {report["warmup"]} to '
            f'warm up, {report["threads"]} threads ({report["machine"]}), steps alternately; the '
            f'loader has two workers. Peak memory of the '
            f'{report["device"]}, of all models together: {peak:.0f} MiB.\n')
