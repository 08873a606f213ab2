"""Train a model.

    python tools/train.py CONFIG [--work-dir DIR] [--amp [TYPE]] [--resume [PATH]]
        [--extend] [--keep-going] [--overwrite] [--cfg-options K=V ...]
"""
import argparse
import os
import signal
from pathlib import Path

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the imports run

import torch
from mmengine.config import Config

from mmdet3d_plugin.engine import build_runner, latest_checkpoint, load_config
from mmdet3d_plugin.engine.cli import (
    add_config_arguments,
    end_with_parent,
    ended_by_interrupt,
    run_tool,
)
from mmdet3d_plugin.engine.work_dir import claimed, remove
from mmdet3d_plugin.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='folder of logs and checkpoints; '
                        'default: work_dirs/<name of the config>')
    parser.add_argument('--amp', nargs='?', const='auto', choices=('auto', 'fp16', 'bf16'),
                        help='mixed precision; without a type fp16 on a GPU and bf16 on a CPU')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate to the real total batch size')
    parser.add_argument('--resume', nargs='?', const='auto',
                        help='continue from the newest checkpoint of the work dir, if there is '
                        'one, or from a path')
    parser.add_argument('--extend', action='store_true',
                        help='with --resume: take learning rate, schedule and optimizer settings '
                        'from the config instead of the checkpoint, at its step')
    parser.add_argument('--keep-going', action='store_true',
                        help='train on where the loss or the weights are NaN or infinite; only '
                        'finite weights are saved')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace the run that the work dir holds: remove its checkpoints and '
                        'logs, and start anew')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='how the processes were started')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.extend and not args.resume:
        parser.error('--extend: continues a run by another schedule; give --resume too')
    if args.overwrite and args.resume:
        parser.error('--overwrite: removes what --resume continues; give one of them')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def apply_arguments(cfg: Config, args: argparse.Namespace) -> Config:
    """Put the command line into the config."""
    cfg.launcher = args.launcher
    if args.keep_going:
        cfg.keep_going = True
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.amp:
        _use_amp(cfg, args.amp)
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size; add '
                            'auto_scale_lr = dict(base_batch_size=<GPUs x batch size of its lr>)')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        path = latest_checkpoint(cfg.work_dir) if args.resume == 'auto' else args.resume
        cfg.resume, cfg.extend = path is not None, args.extend or cfg.get('extend', False)
        cfg.load_from = path or cfg.get('load_from')
    return cfg


def _use_amp(cfg: Config, dtype: str) -> None:
    if cfg.optim_wrapper.get('type', 'OptimWrapper') != 'OptimWrapper':
        raise UserError(f'--amp: expected optim_wrapper.type OptimWrapper, '
                        f'got {cfg.optim_wrapper.type}')
    if dtype == 'bf16' or (dtype == 'auto' and not torch.cuda.is_available()):
        cfg.optim_wrapper.type = 'BF16OptimWrapper'
    elif not torch.cuda.is_available():
        raise UserError('--amp fp16: needs a GPU, and there is none; use --amp bf16')
    else:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')


def main() -> None:
    with ended_by_interrupt('interrupted; the same command with --resume goes on from the last '
                            'checkpoint'):
        args = parse_args()
        if args.launcher != 'none':
            end_with_parent()
        cfg = apply_arguments(load_config(args.config, args.cfg_options), args)
        with claimed(cfg, args.overwrite) as former:
            runner = build_runner(cfg)
            remove(former)
            runner.train()


if __name__ == '__main__':
    run_tool(main)
