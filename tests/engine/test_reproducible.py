"""The sampler's draws are a function of seed and position alone."""
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from mmdet3d_plugin.engine import Draw, ResumableSampler, mix_seed


def sampler(size=5, rank=0, world_size=1, infinite=False, epoch=0, seed=3, shuffle=True):
    made = ResumableSampler(range(size), seed=seed, shuffle=shuffle)
    made.rank, made.world_size, made.infinite = rank, world_size, infinite
    made.set_epoch(epoch)
    return made


def take(iterable, count):
    return [(int(draw), draw.seed) for draw, _ in zip(iterable, range(count))]


def test_an_epoch_has_every_sample_once_in_its_own_order():
    orders = [[int(i) for i in sampler(50, epoch=epoch)] for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert [int(i) for i in sampler(4, shuffle=False)] == [0, 1, 2, 3]


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize('start', [0, 1, 4, 7])
def test_starting_later_skips(infinite, start):
    size = 9
    later = sampler(size, infinite=infinite)
    later.set_start(start)
    assert take(later, 9 - start) == take(sampler(size, infinite=infinite), 9)[start:]
    assert take(later, 3) == take(sampler(size, infinite=infinite), 3)  # once only


def test_the_endless_order_is_epochs_in_a_row():
    assert [i for i, _ in take(sampler(4, infinite=True), 12)] == [
        int(i) for epoch in range(3) for i in sampler(4, epoch=epoch)]


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize('world_size', [2, 3])
def test_ranks_share_one_order(infinite, world_size):
    ranks = [take(sampler(6, rank, world_size, infinite), 6 // world_size)
             for rank in range(world_size)]
    merged = [draw for draws in zip(*ranks) for draw in draws]
    assert merged == take(sampler(6, infinite=infinite), 6)


def test_ranks_have_equal_length():
    lengths = [len(list(sampler(7, rank, 3))) for rank in range(3)]
    assert lengths == [3, 3, 3] == [len(sampler(7, rank, 3)) for rank in range(3)]


def test_every_visit_has_its_own_seed():
    draws = take(sampler(10, infinite=True), 40)
    assert len({seed for _, seed in draws}) == 40
    assert draws != take(sampler(10, infinite=True, seed=4), 40)


def test_the_seed_survives_workers_and_wrappers():
    draw = pickle.loads(pickle.dumps(Draw(7, 123)))
    assert draw == 7 and draw.seed == 123
    assert (draw - 3, (draw - 3).seed) == (4, 123)
    assert (draw % 4, (draw % 4).seed) == (3, 123)

    late = pickle.loads(pickle.dumps(Draw(7, 123, 4)))
    assert [late.epoch, (late - 3).epoch, (late + 3).epoch, (late % 4).epoch] == [4] * 4

    class Seeds(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return int(index), index.seed

    loader = DataLoader(Seeds(), sampler=sampler(3), batch_size=None, num_workers=1)
    assert [tuple(item) for item in loader] == take(sampler(3), 3)
    both = torch.utils.data.ConcatDataset([Seeds(), Seeds()])
    assert both[Draw(4, 9)] == (1, 9)


def test_draws_know_their_epoch():
    endless = sampler(3, infinite=True)
    assert [draw.epoch for _, draw in zip(range(7), endless)] == [0, 0, 0, 1, 1, 1, 2]
    counted = sampler(3)
    counted.set_epoch(5)
    assert [draw.epoch for draw in counted] == [5] * 3


def test_seeds_stay_the_same_between_versions():
    # int(np.random.SeedSequence((0, 1, 2)).generate_state(1)[0]), NumPy 1.26.4
    assert mix_seed(0, 1, 2) == 3884055042
    assert mix_seed(0, 2, 1) != 3884055042
