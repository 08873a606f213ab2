"""What the timing of transforms and loaders measures."""
import time
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.data import DataLoader

from mmdet3d_plugin.benchmark import data_loading


class Slow:
    """A transform that takes as long as it says."""

    def __init__(self, seconds, transforms=()):
        self.seconds, self.transforms = seconds, transforms

    def __call__(self, results):
        time.sleep(self.seconds)
        return dict(results, n=results['n'] + 1)


class Frames:

    def __init__(self, *steps):
        self.pipeline, self.seen = SimpleNamespace(transforms=list(steps)), []

    def __len__(self):
        return 3

    def get_data_info(self, index):
        self.seen.append(index)
        return dict(n=0)


def test_each_transform_has_its_own_time_and_name():
    dataset = Frames(Slow(0.02), Slow(0.0), Slow(0.04, [Slow(0)]))
    threads = torch.get_num_threads()
    spent = list(data_loading.time_transforms(dataset, range(5)))
    assert dataset.seen == [0, 1, 2, 0, 1] and torch.get_num_threads() == threads
    assert list(spent[0]) == ['info', 'Slow', 'Slow #2', 'Slow(Slow)']
    wall, cpu = np.median([[times[name] for name in times] for times in spent], 0).T
    assert 0.02 <= wall[1] < 0.035 and wall[2] < 0.01 and 0.04 <= wall[3] < 0.06
    assert cpu.max() < 0.01  # it slept


def test_the_loader_is_timed_over_epochs():
    loader = DataLoader([0, 1, 2], num_workers=0, batch_size=2)  # two batches an epoch
    seconds = list(data_loading.time_loader(loader, 5))
    assert len(seconds) == 5 and min(seconds) > 0
