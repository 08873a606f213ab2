"""Train a model.

    python tools/train.py CONFIG [--work-dir DIR] [--amp] [--resume [PATH]] [--cfg-options K=V ...]
"""
import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config

from mmdet3d_plugin.engine import build_runner, load_config
from mmdet3d_plugin.engine.cli import add_config_arguments, run_tool
from mmdet3d_plugin.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='folder of logs and checkpoints; '
                        'default: work_dirs/<name of the config>')
    parser.add_argument('--amp', action='store_true', help='train in automatic mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate to the real total batch size')
    parser.add_argument('--resume', nargs='?', const='auto',
                        help='continue from the newest checkpoint of the work dir, or from a path')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='how the processes were started')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def apply_arguments(cfg: Config, args: argparse.Namespace) -> Config:
    """Put the command line into the config."""
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    if args.amp:
        if not torch.cuda.is_available():
            raise UserError('--amp: mixed precision needs a GPU, and there is none; leave it out')
        if cfg.optim_wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise UserError(f'--amp: expected optim_wrapper.type OptimWrapper, '
                            f'got {cfg.optim_wrapper.type}')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size; add '
                            'auto_scale_lr = dict(base_batch_size=<GPUs x batch size of its lr>)')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    return cfg


def main() -> None:
    args = parse_args()
    build_runner(apply_arguments(load_config(args.config, args.cfg_options), args)).train()


if __name__ == '__main__':
    run_tool(main)
