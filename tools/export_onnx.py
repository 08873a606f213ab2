"""Export a student for inference without torch: to ONNX, or to OpenVINO.

    python tools/export_onnx.py CONFIG [CHECKPOINT.pth] OUT

OUT ends with .onnx, or with .xml for OpenVINO; OUT.json is then student.onnx.json. A
distillation's config or checkpoint gives its student. The network takes uint8 images and
normalises them itself; batch norms are folded into convolutions; the calibration is a constant
(--calibration static) or an input. ONNX has standard operators only. OUT.json (inputs, outputs,
grid, classes, preprocessing, versions) and OUT.npz (sampling maps from the camera's image to the
network's, background of drawings) beside it are all that tools/infer_onnx.py needs. The result is
run and compared with torch before it is written; --test evaluates both, --time times both.
"""
import argparse
import dataclasses
from pathlib import Path

import torch

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.deployment.export import SUFFIX, Options, export_student
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import CfgOptions, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('paths', nargs='+', metavar='CONFIG [CHECKPOINT] OUT',
                        help='.py, and where given .pth (else random weights), and the file to '
                        'write, .onnx or .xml')
    parser.add_argument('--runtime', choices=tuple(SUFFIX), help="default: by OUT's ending")
    parser.add_argument('--calibration', choices=('static', 'input'), default='static',
                        help='of the cameras: constant (default), or inputs lidar2cam, lens, '
                        'img_aug')
    parser.add_argument('--info', metavar='FILE', help='info file or JSON with the calibration '
                        "(default: the test data's first frame)")
    parser.add_argument('--tasks', nargs='+', metavar='TASK', help='outputs (default: '
                        'segmentation, and all where the head groups instances)')
    parser.add_argument('--half', action='store_true', help='float16 weights and sums')
    parser.add_argument('--int8', action='store_true', help='8-bit convolutions and matrix '
                        'products, calibrated on frames')
    parser.add_argument('--frames', type=int, default=32,
                        help='training frames that --int8 calibrates on (default: 32)')
    parser.add_argument('--test', action='store_true',
                        help='evaluate the network before and after on the test data')
    parser.add_argument('--time', type=int, default=0, metavar='N', help='time N rounds of the '
                        'model in torch, made ready in torch, and exported, alternately')
    parser.add_argument('--threads', type=int, default=0, help='of the CPU (default: all)')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='override config values')
    args = parser.parse_args()
    if not 2 <= len(args.paths) <= 3:
        parser.error(f'expected CONFIG [CHECKPOINT] OUT, got {len(args.paths)} paths')
    args.config, *middle, out = args.paths
    args.checkpoint, args.out = middle[0] if middle else None, Path(out)
    args.runtime = args.runtime or ('openvino' if args.out.suffix == '.xml' else 'onnx')
    if args.out.suffix != SUFFIX[args.runtime]:
        parser.error(f'OUT {out}: expected a name that ends with {SUFFIX[args.runtime]}')
    if args.half and args.int8:
        parser.error('--half and --int8 exclude each other')
    if args.int8 and args.runtime != 'onnx':
        parser.error('--int8 writes ONNX; OpenVINO reads it')
    return args


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    options = Options(**{field.name: getattr(args, field.name)
                         for field in dataclasses.fields(Options)})
    inferencer = BEVInferencer(load_config(args.config, args.cfg_options), args.checkpoint, 'cpu')
    made = export_student(inferencer, args.checkpoint, args.out, options)
    for name, metrics in made.get('metrics', {}).items():
        print(f'{name}: ' + ', '.join(f'{key} {value}' for key, value in metrics.items()))
    for name, spent in made.get('milliseconds', {}).items():
        print(f'{name}: median {spent["median"]:.1f} ms, least {spent["min"]:.1f} ms')
    _, cameras, _, height, width = made['inputs']['images']['shape']
    print(f'{args.out}: {", ".join(made["outputs"])} of {cameras} x {height}x{width} images; '
          f'differs from torch by {made["differs_from_torch"]:.1g}')


if __name__ == '__main__':
    run_tool(main)
