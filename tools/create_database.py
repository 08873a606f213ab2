"""Cut the objects out of a config's training data, for its PasteObjects.

    python tools/create_database.py CONFIG [--workers N]
"""
import argparse

from mmdet3d_plugin.datasets.object_database import create_database
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import add_config_arguments, run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_config_arguments(parser)
    parser.add_argument('--workers', type=int, default=2, help='processes (default: 2)')
    args = parser.parse_args()
    report = create_database(load_config(args.config, args.cfg_options), args.workers)
    print(*(f'{name}: {value}' for name, value in report.items()), sep='\n')


if __name__ == '__main__':
    run_tool(main)
