"""Draw what models see and predict, side by side.

    python tools/visualize.py CONFIG CHECKPOINT [CONFIG CHECKPOINT ...] --out-dir DIR [--roles]

For every frame of the test data one image: the panorama with the ground truth's boxes, the LiDAR
image (if one of the models reads it), the ground truth and each model's bird's-eye view against it;
with --instances also the instances that each model's centerness and offset make of it. Of detectors
the boxes of the ground truth and of each model are drawn in the images and from above. With --roles
a distillation's CONFIG and the CHECKPOINT of its training give teacher, assistant and student.
--video joins the images of consecutive frames.
"""
import argparse
import contextlib
from pathlib import Path

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.checkpoints import read_checkpoint
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import CfgOptions, read_result, run_tool
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.locking import drawing_into
from mmdet3d_plugin.structures import file_name
from mmdet3d_plugin.visualization import save_image
from mmdet3d_plugin.visualization.detections import SCORE_THRESHOLD
from mmdet3d_plugin.visualization.frames import (
    best_thresholds,
    draw_predictions,
    parse_thresholds,
    short_names,
)
from mmdet3d_plugin.visualization.video import writing_video


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT',
                        help='one or more pairs, for example a student and its teacher')
    parser.add_argument('--out-dir', required=True, help='folder of the images')
    parser.add_argument('--indices', nargs='+', type=int, metavar='N',
                        help='frames of the test data (default: 8, evenly spaced; with --video '
                        'all)')
    parser.add_argument('--video', action='store_true', help='also write video.mp4 of the images')
    parser.add_argument('--fps', type=float, default=4, help='of the video (default: 4)')
    parser.add_argument('--names', nargs='+', help='titles of the models (default: config names)')
    parser.add_argument('--width', type=int, default=1440, help='of an image, px (default: 1440)')
    parser.add_argument('--instances', action='store_true',
                        help='group the maps to instances and draw these and their boxes')
    parser.add_argument('--roles', action='store_true',
                        help='of distillations, draw teacher, assistant and student')
    parser.add_argument('--threshold', nargs='+', default=['0.5'], metavar='P',
                        help='of the classes of a map: one, one for each, CLASS=P of some, or a '
                        'RESULT.json of tools/test.py, whose best are taken (default: 0.5)')
    parser.add_argument('--score-threshold', type=float, default=SCORE_THRESHOLD, metavar='S',
                        help=f'of the boxes of detectors (default: {SCORE_THRESHOLD})')
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in every config')
    args = parser.parse_args()
    if not args.fps > 0:
        parser.error(f'--fps: expected a number above 0, got {args.fps:g}')
    if len(args.models) % 2:
        parser.error(f'expected pairs of CONFIG and CHECKPOINT, got {len(args.models)} paths')
    args.models = list(zip(args.models[::2], args.models[1::2]))
    args.names = args.names or short_names([Path(config).stem for config, _ in args.models])
    if len(args.names) != len(args.models):
        parser.error(f'--names: {len(args.names)} names for {len(args.models)} models')
    if len(set(args.names)) < len(args.names):
        parser.error('two models have the same name; tell them apart with --names')
    return args


def load_model(config, checkpoint, args):
    """The model with its test data; with ``--roles`` the teacher too, and its test data."""
    cfg = read_config(config, args)
    if not args.roles or cfg.model.type != 'Distiller':
        return BEVInferencer(cfg, checkpoint, args.device)
    state = read_checkpoint(checkpoint)
    if cfg.model.get('assistant') and not any(
            key.startswith('assistant.') for key in state.get('state_dict', state)):
        raise UserError(f'--roles: {checkpoint} has no assistant; give a checkpoint of the '
                        'training, not a published one')
    model = BEVInferencer(cfg, checkpoint, args.device)
    model.model.load_teachers()
    options = {key: value for key, value in args.cfg_options.items()
               if key.split('.')[0] in ('data_root', 'test_dataloader')}
    teacher, *_ = model.model.teachers.values()  # its test data has what all roles read
    model.dataset_cfg = load_config(teacher.config_file(), options).test_dataloader.dataset
    return model


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


def read_thresholds(words, classes):
    """The thresholds that ``--threshold`` says, or the best ones of a result."""
    if len(words) == 1 and words[0].endswith('.json'):
        return best_thresholds(read_result(words[0]), classes, words[0])
    return parse_thresholds(words, classes)


def main() -> None:
    args = parse_args()
    with drawing_into(args.out_dir):
        draw(args)


def draw(args: argparse.Namespace) -> None:
    """Write one image per frame, and the video."""
    models = {name: load_model(config, checkpoint, args)
              for name, (config, checkpoint) in zip(args.names, args.models)}
    first = next(iter(models.values())).model
    threshold = read_thresholds(
        args.threshold, getattr(getattr(first, 'student', first).head, 'classes', ()))
    count = len(next(iter(models.values())).dataset)
    indices = args.indices or (range(count) if args.video else
                               sorted({n * count // 8 for n in range(8)}))
    if not 0 <= min(indices) <= max(indices) < count:
        raise UserError(f'--indices: the test data has frames 0 to {count - 1}, got {indices}')
    out_dir = Path(args.out_dir)
    film = writing_video(out_dir / 'video.mp4', args.fps) if args.video else (
        contextlib.nullcontext(lambda image: None))
    with film as add:
        for index in indices:
            token, image = draw_predictions(index, models, args.width, threshold,
                                            args.score_threshold)
            path = out_dir / f'{index:06d}_{file_name(token)}.png'
            save_image(path, image)
            add(image)
            print(path)
    if args.video:
        print(out_dir / 'video.mp4')


if __name__ == '__main__':
    run_tool(main)
