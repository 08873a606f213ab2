"""Draw what models see and predict, side by side.

    python tools/visualize.py CONFIG CHECKPOINT [CONFIG CHECKPOINT ...] --out-dir DIR

For every frame of the test data one picture: the panorama with the ground truth's boxes, the LiDAR
image (if one of the models reads it), the ground truth and each model's bird's-eye view against it;
with --instances also the instances that each model's centerness and offset make of it.
"""
import argparse
from pathlib import Path

import cv2
import torch
from mmengine.dataset import pseudo_collate

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import CfgOptions, run_tool
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.visualization import frame_panel


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT',
                        help='one or more pairs, for example a student and its teacher')
    parser.add_argument('--out-dir', required=True, help='folder of the pictures')
    parser.add_argument('--indices', nargs='+', type=int, metavar='N',
                        help='frames of the test data (default: 8, evenly spaced)')
    parser.add_argument('--names', nargs='+', help='titles of the models (default: config names)')
    parser.add_argument('--width', type=int, default=1440, help='of a picture, px (default: 1440)')
    parser.add_argument('--instances', action='store_true',
                        help='group the maps to instances and draw these and their boxes')
    parser.add_argument('--threshold', nargs='+', type=float, default=[0.5], metavar='P',
                        help='of the classes of a map, one or one for each (default: 0.5)')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in every config')
    args = parser.parse_args()
    if len(args.models) % 2:
        parser.error(f'expected pairs of CONFIG and CHECKPOINT, got {len(args.models)} paths')
    args.models = list(zip(args.models[::2], args.models[1::2]))
    args.names = args.names or _short_names([Path(config).stem for config, _ in args.models])
    if len(args.names) != len(args.models):
        parser.error(f'--names: {len(args.names)} names for {len(args.models)} models')
    return args


def _short_names(stems):
    """Config names without the beginning and end that they share."""
    if len(set(stems)) < 2:
        return stems
    words = [stem.split('_') for stem in stems]
    while len({w[0] for w in words}) == 1 and min(map(len, words)) > 1:
        words = [w[1:] for w in words]
    while len({w[-1] for w in words}) == 1 and min(map(len, words)) > 1:
        words = [w[:-1] for w in words]
    return ['_'.join(w) for w in words]


@torch.no_grad()
def draw_frame(index, models, width, threshold=0.5):
    """One frame through all models; returns its name and the picture, RGB."""
    inputs, predictions, instances, shown = {}, {}, {}, None
    for name, model in models.items():
        packed = model.dataset[index]
        sample = packed['data_samples']
        for key, value in packed['inputs'].items():
            inputs.setdefault(key, value)
        if shown is None:
            shown = sample.clone()
        for key in ('token', 'bev_grid'):
            if sample.metainfo.get(key) != shown.metainfo.get(key):
                raise UserError(f'frame {index}: {key} of {name} is {sample.metainfo.get(key)}, of '
                                f'{next(iter(models))} {shown.metainfo.get(key)}; give configs of '
                                'the same test data and grid')
        extra = {k: v for k, v in sample.metainfo.items() if k not in shown.metainfo}
        shown.set_metainfo(extra)
        result = model.model.test_step(pseudo_collate([packed]))[0]
        predictions[name] = result.pred_bev.seg.cpu().numpy()
        if 'pred_instances_3d' in result:
            instances[name] = result.cpu()
    token = shown.metainfo.get('token', str(index))
    title = f'frame {index}: {token}'
    return token, frame_panel(shown, inputs, predictions, title, width, instances,
                              threshold)


def read_config(path, args):
    """The config, with instances switched on in model and test data where asked for."""
    cfg = load_config(path, args.cfg_options)
    if args.instances:
        head = cfg.model.get('student', cfg.model).head
        head.instances = head.get('instances') or dict(type='CenterGrouping')
        for transform in cfg.test_dataloader.dataset.pipeline:
            if transform.type == 'RasterizeBEV':
                transform.instances = True
    return cfg


def main() -> None:
    args = parse_args()
    models = {name: BEVInferencer(read_config(config, args), checkpoint, args.device)
              for name, (config, checkpoint) in zip(args.names, args.models)}
    count = len(next(iter(models.values())).dataset)
    indices = args.indices or sorted({n * count // 8 for n in range(8)})
    if not 0 <= min(indices) <= max(indices) < count:
        raise UserError(f'--indices: the test data has frames 0 to {count - 1}, got {indices}')
    out_dir = Path(args.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    for index in indices:
        token, picture = draw_frame(index, models, args.width, args.threshold)
        path = out_dir / f'{index:06d}_{token}.png'
        cv2.imwrite(str(path), picture[..., ::-1])
        print(path)


if __name__ == '__main__':
    run_tool(main)
