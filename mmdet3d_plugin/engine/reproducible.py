"""Randomness as a function of the position in the run, not of its history.

A run that was killed and resumed then draws what the uninterrupted run draws, for any number of
workers, without storing a single generator state.
"""
from typing import Iterator, Optional, Sized

import numpy as np
import torch
from mmdet3d.registry import DATA_SAMPLERS, HOOKS
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner, set_random_seed
from torch.utils.data import DataLoader, Sampler


def mix_seed(*position: int) -> int:
    """A 32-bit seed from non-negative integers such as (seed, epoch, position)."""
    return int(np.random.SeedSequence(position).generate_state(1)[0])


class Draw(int):
    """A dataset index with ``seed``, the random seed of this one visit to the sample, and its
    ``epoch``, from 0.

    It is an int to every dataset; those that draw random numbers seed their generators with
    ``seed``. Wrappers of datasets shift and fold indices: seed and epoch stay with them.
    """

    def __new__(cls, index: int, seed: int, epoch: int = 0) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.seed, draw.epoch = seed, epoch
        return draw

    def __reduce__(self):
        return Draw, (int(self), self.seed, self.epoch)

    def __add__(self, other: int) -> 'Draw':
        return Draw(int(self) + other, self.seed, self.epoch)

    def __sub__(self, other: int) -> 'Draw':
        return Draw(int(self) - other, self.seed, self.epoch)

    def __mod__(self, other: int) -> 'Draw':
        return Draw(int(self) % other, self.seed, self.epoch)


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler):
    """A sampler whose k-th draw depends on nothing but the seed and k.

    The samples of all ranks together, in order, do not depend on the number of ranks.

    Args:
        dataset (Sized): The dataset.
        shuffle (bool): Whether each epoch has its own random order. Defaults to True.
        seed (int, optional): Seed of the run, equal on all ranks. Defaults to None: a random one.

    One ``iter()`` is one epoch, filled up to equal length on all ranks from its own beginning.
    With the attribute ``infinite``, which :class:`ReproducibleTrainingHook` sets in
    iteration-based training, epochs follow each other without an end.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: Optional[int] = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.infinite = False
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Draws of this rank in one epoch."""
        return -(-self.size // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next ``iter()``; without effect if infinite."""
        self.epoch = epoch

    def set_start(self, start: int) -> None:
        """Let only the next ``iter()`` begin after ``start`` draws of this rank."""
        self.start = start

    def __iter__(self) -> Iterator[Draw]:
        start, self.start = self.start, 0
        position = start * self.world_size + self.rank  # in the common order of all ranks
        end = float('inf') if self.infinite else len(self) * self.world_size
        order_epoch, order = None, []
        while self.size and position < end:
            epoch = position // self.size if self.infinite else self.epoch
            if epoch != order_epoch:
                order_epoch, order = epoch, self._order(epoch)
            yield Draw(order[position % self.size], mix_seed(self.seed, epoch, position), epoch)
            position += self.world_size

    def _order(self, epoch: int) -> list:
        if not self.shuffle:
            return list(range(self.size))
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch))
        return torch.randperm(self.size, generator=generator).tolist()


@HOOKS.register_module()
class ReproducibleTrainingHook(Hook):
    """Makes a resumed run repeat the uninterrupted one, bit for bit on the CPU.

    Before each step it seeds Python, NumPy and torch from (seed, rank, step); before each epoch
    it puts a :class:`ResumableSampler` at the place where the run stands. It takes the slot
    ``sampler_seed`` of the default hooks, whose work it includes.
    """

    priority = 'NORMAL'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the size of the batches, on which the position in the data depends."""
        checkpoint['meta']['batches'] = batches(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Put the sampler at the runner's epoch and iteration."""
        loader, loop = runner.train_dataloader, runner.train_loop
        sampler = loader.batch_sampler.sampler
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(runner.epoch)
        if not isinstance(sampler, ResumableSampler):
            return
        sampler.seed = runner.seed  # a resumed run takes the seed of its checkpoint
        sampler.infinite = isinstance(loop, IterBasedTrainLoop)
        done = runner.iter if sampler.infinite else runner.iter - runner.epoch * len(loader)
        sampler.set_start(max(done, 0) * loader.batch_sampler.batch_size)
        if sampler.infinite:
            loop.dataloader_iterator = _skipping(loader, runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Seed the step."""
        set_random_seed(mix_seed(runner.seed, runner.rank, runner.iter))


def batches(runner: Runner) -> dict:
    """Frames of a batch of all processes, and batches of an epoch."""
    loader = runner.train_dataloader
    return dict(frames=loader.batch_sampler.batch_size * runner.world_size, per_epoch=len(loader))


def follow_batches(runner: Runner, saved: Optional[dict]) -> None:
    """Say at which frame a run goes on that is resumed with batches of another size.

    Where epochs are counted, the steps of the epochs so far become those of the new batches.

    Args:
        runner (Runner): Resumed.
        saved (dict, optional): The :func:`batches` of its checkpoint.
    """
    now, loop = batches(runner), runner.train_loop
    if not saved or saved['frames'] == now['frames']:
        return
    text = (f'Resumed with batches of {now["frames"]} frames on all processes together; the '
            f'checkpoint had {saved["frames"]}: ')
    if isinstance(loop, IterBasedTrainLoop):
        text += (f'the order of the frames goes on at draw {loop.iter * now["frames"]}, as if all '
                 f'{loop.iter} steps had had such batches; they drew '
                 f'{loop.iter * saved["frames"]}')
    else:
        inside = max(loop.iter - loop.epoch * saved['per_epoch'], 0) * saved['frames']
        loop._iter = loop.epoch * now['per_epoch'] + inside // now['frames']
        text += (f'epoch {loop.epoch + 1} goes on after {inside} of its frames, and steps are '
                 f'counted on from {loop.iter}')
    runner.logger.warning(f'{text}. The learning rate stays; --auto-scale-lr with --extend scales '
                          'it')


def _skipping(loader: DataLoader, steps: int) -> Iterator:
    """Batches for mmengine's loop, which asks for the ``steps`` past ones and drops them."""
    for _ in range(steps):
        yield None
    yield from loader
