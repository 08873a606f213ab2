"""A model, a data set and a config that train in milliseconds, for tests of the machinery."""
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from mmdet3d.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from mmdet3d_plugin.errors import build_from


@DATASETS.register_module()
class ToyDataset:
    """Points (3,) float32 around their index, moved by draws of all three generators."""

    metainfo = dict(classes=('toy', ))

    def __init__(self, size=12, noise=1.0):
        self.size, self.noise = size, noise

    def __len__(self):
        return self.size

    def __getitem__(self, idx):
        seed = getattr(idx, 'seed', None)
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
        moved = torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])
        x = torch.full((3, ), float(idx)) / self.size + self.noise * moved
        return dict(inputs=x, data_samples=float(idx))


@MODELS.register_module()
class ToyHead(nn.Module):

    def __init__(self, channels, focal_gamma=2.0):
        super().__init__()
        self.out = nn.Linear(channels, 1)
        self.focal_gamma = focal_gamma

    def forward(self, x):
        return self.out(x)


@MODELS.register_module()
class ToyModel(BaseModel):
    """Regresses the index; ``dropout`` makes training draw random numbers too."""

    def __init__(self, head, dropout=0.0, norm=False, data_preprocessor=None, init_cfg=None):
        super().__init__(data_preprocessor, init_cfg)
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8) if norm else nn.Identity(),
                                  nn.ReLU(), nn.Dropout(dropout))
        self.head = build_from(MODELS, head, 'model.head', channels=8)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = torch.stack(list(inputs))
        out = self.head(self.body(x))[:, 0]
        if mode == 'tensor':
            return out
        target = torch.as_tensor(data_samples, dtype=torch.float32)
        if mode == 'loss':
            return dict(loss_index=((out - target)**2).mean(), loss_size=out.abs().mean() * 0.1)
        return [dict(error=abs(o - t).item()) for o, t in zip(out, target)]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results += [sample['error'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(mae=float(np.mean(results)), count=len(results))


@HOOKS.register_module()
class WriteLossHook(Hook):
    """Appends this rank's losses to ``losses_<rank>.txt`` in the work dir; may slow a step."""

    def __init__(self, sleep=0.0):
        self.sleep = sleep

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open(Path(runner.work_dir) / f'losses_{runner.rank}.txt', 'a') as file:
            file.write(f'{runner.iter} {outputs["loss"].item()!r}\n')
            file.flush()
            os.fsync(file.fileno())
        time.sleep(self.sleep)


@HOOKS.register_module()
class FrozenNormHook(Hook):
    """Batch normalisation uses its running statistics in training, too."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for module in runner.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
