"""Compare models: parameters, MACs, accuracy, efficiency ratio, latency.

    python tools/benchmark.py CONFIG [CHECKPOINT.pth] [RESULT.json] [CONFIG ...] [--synthetic]
                              [--backends eager deployed openvino ...] [--official] [--memory]
    python tools/benchmark.py --data CONFIG [CONFIG ...] [--split train]
    python tools/benchmark.py --train CONFIG [CONFIG ...]

Latency is measured in four parts: loading a frame, preprocessing it, the network, and the head's
prediction. The models alternate, so that a busy machine slows all of them alike; the same frames
for all, some rounds to warm up, then mean, median, 90th and 95th percentile and minimum. MACs are
those of convolutions, linear layers and matrix products, for one frame. A distiller is measured as
what is deployed: its student. RESULT.json is what tools/test.py or tools/run_experiments.py wrote.

A backend is how a model runs: eager; deployed (norms folded, constant geometry), onnxruntime or
openvino; eager and deployed also with -compiled, -bf16 or -fp16 after the name, openvino with
-bf16. --official adds the official data flow of KD360-VoxelBEV's student and each backend's speed
in multiples of it. Freed memory is kept for the next tensors, as the tools here do; the official
baseline runs in a process without that, and with it as official-kept. The column "difference" is
the largest of the first output (a probability) from that of the model's first backend but the
official one.
"""
import argparse
import dataclasses
import json
from pathlib import Path

import torch

from mmdet3d_plugin.benchmark.data_loading import text_of_data
from mmdet3d_plugin.benchmark.reports import (
    Settings,
    parse_models,
    report_on_data,
    report_on_models,
    report_on_training,
    text_of_models,
)
from mmdet3d_plugin.benchmark.training_speed import text_of_training
from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.engine.cli import CfgOptions, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('models', nargs='+', metavar='CONFIG [CHECKPOINT] [RESULT]',
                        help='.py, and where given .pth and .json; random weights without .pth')
    parser.add_argument('--names', nargs='+', help='of the models (default: config names)')
    parser.add_argument('--frames', type=int, default=20, help='rounds to measure (default: 20)')
    parser.add_argument('--warmup', type=int, default=3, help='rounds before (default: 3)')
    parser.add_argument('--batch-size', type=int, default=1, help='frames of a round (default: 1)')
    parser.add_argument('--synthetic', action='store_true',
                        help="noise of the test data's sizes; needs no data")
    parser.add_argument('--points', type=int, default=131072,
                        help='LiDAR points of a synthetic frame (default: 131072)')
    parser.add_argument('--backends', nargs='+', default=['eager'], metavar='NAME',
                        help='in which each model runs (default: eager); see above')
    parser.add_argument('--official', action='store_true',
                        help='measure against the official data flow')
    parser.add_argument('--memory', action='store_true',
                        help='measure peak memory too, each backend in a process of its own')
    parser.add_argument('--test', action='store_true',
                        help='evaluate checkpoints that have no RESULT on the test data')
    parser.add_argument('--data', action='store_true',
                        help='time the loading of frames, by transform, in place of the models')
    parser.add_argument('--train', action='store_true',
                        help='time steps of training, in place of the models')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train',
                        help='whose frames --data loads (default: train)')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--threads', type=int, help='of the CPU (default: as torch chooses)')
    parser.add_argument('--out', nargs='+', default=[], help='files to write, .json or .md')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in every config')
    args = parser.parse_args()
    if min(args.frames, args.batch_size, args.points) < 1 or args.warmup < 0:
        parser.error('expected --frames, --batch-size and --points of at least 1 and --warmup of '
                     'at least 0')
    if args.test and args.synthetic:
        parser.error('--test needs the test data; leave --synthetic out')
    for flag in ('data', 'train'):
        if getattr(args, flag) and (args.test or args.synthetic or args.data and args.train):
            parser.error(f'--{flag} measures nothing else; leave the others out')
    for path in args.out:
        if Path(path).suffix not in ('.json', '.md'):
            parser.error(f'--out {path}: expected a name that ends with .json or .md')
    return args


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    entries = parse_models(args.models, args.names)
    settings = Settings(**{field.name: getattr(args, field.name)
                           for field in dataclasses.fields(Settings)})
    measure, write = ((report_on_data, text_of_data) if args.data else
                      (report_on_training, text_of_training) if args.train else
                      (report_on_models, text_of_models))
    report = measure(settings, entries)
    text = write(report)
    print(text)
    for path in args.out:
        content = text if Path(path).suffix == '.md' else json.dumps(report, indent=1)
        with atomic_write(path) as file:
            file.write(content.encode())


if __name__ == '__main__':
    run_tool(main)
