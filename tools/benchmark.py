"""Count parameters and measure frames per second at inference.

    python tools/benchmark.py CONFIG CHECKPOINT [CONFIG CHECKPOINT ...] [--names NAME ...]

One frame of the test data at a time, loaded before the clock starts; a step is preprocessing,
network and prediction. The models take turns frame by frame, so that a busy machine slows all of
them alike, and the median counts. A distiller is measured as what is deployed: its student.
"""
import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Dict, List

import torch
from mmengine.dataset import pseudo_collate
from torch import nn

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import CfgOptions, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT', help='one or more pairs')
    parser.add_argument('--names', nargs='+', help='of the models (default: config names)')
    parser.add_argument('--frames', type=int, default=20, help='to measure (default: 20)')
    parser.add_argument('--warmup', type=int, default=3, help='frames before (default: 3)')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--out', help='JSON file to write')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in every config')
    args = parser.parse_args()
    if len(args.models) % 2:
        parser.error(f'expected pairs of CONFIG and CHECKPOINT, got {len(args.models)} paths')
    if args.frames < 1 or args.warmup < 0:
        parser.error('expected --frames of at least 1 and --warmup of at least 0')
    args.models = list(zip(args.models[::2], args.models[1::2]))
    args.names = args.names or [Path(config).stem for config, _ in args.models]
    if not len(args.names) == len(set(args.names)) == len(args.models):
        parser.error(f'--names: expected {len(args.models)} different names, got {args.names}')
    return args


def deployed(model: nn.Module) -> nn.Module:
    """What runs at inference: the student of a distiller, else the model itself."""
    return getattr(model, 'student', model)


@torch.no_grad()
def measure(models: Dict[str, BEVInferencer], frames: int, warmup: int) -> Dict[str, List[float]]:
    """Seconds of every measured frame, by model."""
    seconds = {name: [] for name in models}
    for turn in range(warmup + frames):
        for name, inferencer in models.items():
            batch = pseudo_collate([inferencer.dataset[turn % len(inferencer.dataset)]])
            _wait_for_gpu()
            begin = time.perf_counter()
            inferencer.model.test_step(batch)
            _wait_for_gpu()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    args = parse_args()
    models = {name: BEVInferencer(load_config(config, args.cfg_options), checkpoint, args.device)
              for name, (config, checkpoint) in zip(args.names, args.models)}
    seconds = measure(models, args.frames, args.warmup)
    weights = next(next(iter(models.values())).model.parameters())
    device = torch.cuda.get_device_name() if weights.is_cuda else 'CPU'
    report = dict(device=device, threads=torch.get_num_threads(), batch_size=1, frames=args.frames,
                  warmup=args.warmup, models={})
    print(f'{device}, {report["threads"]} threads, batch 1, median of {args.frames} frames')
    for name, inferencer in models.items():
        count = sum(p.numel() for p in deployed(inferencer.model).parameters())
        rate = 1 / median(seconds[name])
        report['models'][name] = dict(parameters=count, frames_per_second=rate)
        print(f'{name:24s} {count:12,d} parameters {rate:8.2f} frames/s')
    if args.out:
        with atomic_write(args.out) as file:
            file.write(json.dumps(report, indent=1).encode())


if __name__ == '__main__':
    run_tool(main)
