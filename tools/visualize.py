"""Draw what models see and predict, side by side.

    python tools/visualize.py CONFIG CHECKPOINT [CONFIG CHECKPOINT ...] --out-dir DIR [--roles]

For every frame of the test data one image: the panorama with the ground truth's boxes, the LiDAR
image (if one of the models reads it), the ground truth and each model's bird's-eye view against it;
with --instances also the instances that each model's centerness and offset make of it. With --roles
a distillation's CONFIG and the CHECKPOINT of its training give teacher, assistant and student.
"""
import argparse
from pathlib import Path

import cv2
import torch
from mmengine.dataset import pseudo_collate

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.checkpoints import read_checkpoint
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import CfgOptions, read_result, run_tool
from mmdet3d_plugin.errors import UserError, did_you_mean
from mmdet3d_plugin.visualization import frame_panel


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT',
                        help='one or more pairs, for example a student and its teacher')
    parser.add_argument('--out-dir', required=True, help='folder of the images')
    parser.add_argument('--indices', nargs='+', type=int, metavar='N',
                        help='frames of the test data (default: 8, evenly spaced)')
    parser.add_argument('--names', nargs='+', help='titles of the models (default: config names)')
    parser.add_argument('--width', type=int, default=1440, help='of an image, px (default: 1440)')
    parser.add_argument('--instances', action='store_true',
                        help='group the maps to instances and draw these and their boxes')
    parser.add_argument('--roles', action='store_true',
                        help='of distillations, draw teacher, assistant and student')
    parser.add_argument('--threshold', nargs='+', default=['0.5'], metavar='P',
                        help='of the classes of a map: one, one for each, CLASS=P of some, or a '
                        'RESULT.json of tools/test.py, whose best are taken (default: 0.5)')
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
    """One frame through all models; returns its name and the image, RGB."""
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
        batch = pseudo_collate([packed])
        if _has_roles(model):
            roles = model.model.predict_roles(batch)
            shared = len(models) > 1
            predictions.update({f'{name}, {role}' if shared else role: found.seg.cpu().numpy()
                                for role, [found] in roles.items()})
            continue
        result = model.model.test_step(batch)[0]
        predictions[name] = result.pred_bev.seg.cpu().numpy()
        if 'pred_instances_3d' in result:
            instances[name] = result.cpu()
    token = shown.metainfo.get('token', str(index))
    title = f'frame {index}: {token}'
    return token, frame_panel(shown, inputs, predictions, title, width, instances,
                              threshold)


def read_thresholds(words, classes):
    """The thresholds that ``--threshold`` says: one number, or one for each class.

    Raises:
        UserError: A word is no number and names no class or file, or there are too many.
    """
    if len(words) == 1 and words[0].endswith('.json'):
        return _best_thresholds(words[0], classes)
    named = dict(word.split('=', 1) for word in words if '=' in word)
    plain = [_probability(word) for word in words if '=' not in word] or [0.5]
    for name in named:
        if name not in classes:
            raise UserError(f'--threshold {name}: no such class{did_you_mean(name, classes)}')
    if len(plain) not in {1, len(classes)}:
        raise UserError(f'--threshold: {len(plain)} numbers for {len(classes)} classes; give one, '
                        'or one for each')
    if not named:
        return plain
    limits = dict(zip(classes, plain * (len(classes) if len(plain) == 1 else 1)))
    return list({**limits, **{name: _probability(p) for name, p in named.items()}}.values())


def _probability(word):
    try:
        return float(word)
    except ValueError:
        raise UserError(f'--threshold {word}: expected a number, CLASS=NUMBER, or a RESULT.json '
                        'alone') from None


def _best_thresholds(path, classes):
    """The threshold of each class whose IoU is the highest in a result of ``MapIoUMetric``."""
    result, best = read_result(path), []
    for name in classes:
        found = {key.rpartition('_')[2]: value for key, value in result.items()
                 if key.rpartition('_')[0] == f'map/{name}'}
        if not found:
            raise UserError(f'--threshold {path}: it has no IoU of {name} by threshold, such as '
                            f'map/{name}_0.50; give the .json that tools/test.py wrote')
        best.append(float(max(found, key=found.get)))
    return best


def _has_roles(model):
    """Whether the model is a distiller whose teacher is loaded."""
    teacher = getattr(model.model, 'teacher', None)
    return teacher is not None and teacher.model is not None


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
               if key.startswith('test_dataloader')}
    model.dataset_cfg = load_config(
        model.model.teacher.config_file(), options).test_dataloader.dataset
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


def main() -> None:
    args = parse_args()
    models = {name: load_model(config, checkpoint, args)
              for name, (config, checkpoint) in zip(args.names, args.models)}
    first = next(iter(models.values())).model
    threshold = read_thresholds(
        args.threshold, getattr(getattr(first, 'student', first).head, 'classes', ()))
    count = len(next(iter(models.values())).dataset)
    indices = args.indices or sorted({n * count // 8 for n in range(8)})
    if not 0 <= min(indices) <= max(indices) < count:
        raise UserError(f'--indices: the test data has frames 0 to {count - 1}, got {indices}')
    out_dir = Path(args.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    for index in indices:
        token, image = draw_frame(index, models, args.width, threshold)
        path = out_dir / f'{index:06d}_{token}.png'
        cv2.imwrite(str(path), image[..., ::-1])
        print(path)


if __name__ == '__main__':
    run_tool(main)
