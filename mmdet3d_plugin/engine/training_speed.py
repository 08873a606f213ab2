"""How long training steps take, of a student by itself and of its distillation."""
import copy
import time
from typing import Dict, Iterable, Iterator, Sequence

import numpy as np
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper

from ..distillation import Distiller
from ..errors import build_from
from ..structures import fields


class TrainingStep:
    """A model, its optimiser and a few batches in memory; calling it is a step of training.

    Args:
        model (BaseModel): In training mode.
        optim_wrapper (dict): Config of its optimiser.
        batches (list[dict]): Collated; taken in turn.
    """

    def __init__(self, model: BaseModel, optim_wrapper: dict, batches: Sequence[dict]):
        self.model, self.batches = model.train(), batches
        self.optim_wrapper: OptimWrapper = build_optim_wrapper(model, optim_wrapper)

    def __call__(self, turn: int) -> Dict[str, float]:
        """One step; the seconds it took of the processor and by the clock."""
        start = time.process_time(), time.perf_counter()
        self.model.train_step(self.batches[turn % len(self.batches)], self.optim_wrapper)
        return dict(cpu=time.process_time() - start[0], clock=time.perf_counter() - start[1])


def training_steps(cfg: Config, batches: Sequence[dict]) -> Dict[str, TrainingStep]:
    """The steps to compare: of a distillation also its student's own, which reads images alone.

    Weights are random, a teacher's too: no checkpoint is read.

    Args:
        cfg (Config): Of a model that trains.
        batches (list[dict]): Collated frames of its training data.

    Returns:
        dict: ``student`` and ``distillation``, or ``model``.
    """
    model = build_from(MODELS, copy.deepcopy(cfg.model), 'model')
    if not isinstance(model, Distiller):
        return dict(model=TrainingStep(model, cfg.optim_wrapper, batches))
    if model.teacher is not None:
        model.build_teachers()
    student = copy.deepcopy(model.student)
    images = [dict(batch, inputs={fields.IMG: batch['inputs'][fields.IMG]}) for batch in batches]
    return dict(student=TrainingStep(student, cfg.optim_wrapper, images),
                distillation=TrainingStep(model, cfg.optim_wrapper, batches))


def time_steps(steps: Dict[str, TrainingStep],
               turns: Iterable[int]) -> Iterator[Dict[str, Dict[str, float]]]:
    """Take the steps in turn, so that a busy machine slows all of them alike.

    Yields:
        dict: by the steps' names ``cpu`` and ``clock``, seconds.
    """
    for turn in turns:
        yield {name: step(turn) for name, step in steps.items()}


def describe_steps(spent: Sequence[Dict[str, Dict[str, float]]]) -> Dict[str, Dict[str, float]]:
    """Medians by the steps' names: ``cpu`` and ``clock`` in ms, and ``ratio`` to the first step.

    The ratio is of processor times and taken turn by turn.
    """
    first = next(iter(spent[0]))
    return {name: dict(
        **{kind: 1000 * float(np.median([turn[name][kind] for turn in spent]))
           for kind in ('cpu', 'clock')},
        ratio=float(np.median([turn[name]['cpu'] / turn[first]['cpu'] for turn in spent])))
        for name in spent[0]}
