"""Print a config with everything it inherits.

    python tools/print_config.py CONFIG [--cfg-options K=V ...] [--save PATH]
"""
import argparse

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import add_config_arguments, run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description='Print a config with everything it inherits')
    add_config_arguments(parser)
    parser.add_argument('--save', help='write it to this .py file, too')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    print(cfg.pretty_text)
    if args.save:
        with atomic_write(args.save) as file:
            file.write(cfg.pretty_text.encode())


if __name__ == '__main__':
    run_tool(main)
