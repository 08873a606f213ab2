"""Evaluate a checkpoint.

    python tools/test.py CONFIG CHECKPOINT [--work-dir DIR] [--cfg-options K=V ...]

WORK_DIR/<time>/<time>.json holds the metrics, the config, and path and SHA-256 of the checkpoint.
"""
import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.model import is_model_wrapper

from mmdet3d_plugin.checkpoints import load_weights
from mmdet3d_plugin.engine import build_runner, load_config
from mmdet3d_plugin.engine.cli import (
    add_config_arguments,
    end_with_parent,
    name_origin,
    run_tool,
)
from mmdet3d_plugin.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder of the log and the metrics; '
                        'default: work_dirs/<name of the config>')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='how the processes were started')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def apply_arguments(cfg: Config, args: argparse.Namespace) -> Config:
    """Put the command line into the config."""
    if not cfg.get('test_dataloader'):
        raise UserError(f'config {args.config}: it has no test_dataloader; add one, '
                        'or test with a config that has')
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    cfg.load_from, cfg.resume = None, False
    return cfg


def main() -> None:
    args = parse_args()
    if args.launcher != 'none':
        end_with_parent()
    runner = build_runner(apply_arguments(load_config(args.config, args.cfg_options), args))
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model, args.checkpoint)
    metrics = runner.test()
    result = Path(runner.log_dir) / f'{runner.timestamp}.json'
    if runner.rank == 0 and result.is_file():  # unless the config has a logger of its own
        name_origin(result, metrics, args)


if __name__ == '__main__':
    run_tool(main)
