"""Convert checkpoints between the authors' release of KD360-VoxelBEV and this package.

    python projects/kd360_voxelbev/convert_checkpoint.py SRC DST --model {student,teacher,ta}
    python projects/kd360_voxelbev/convert_checkpoint.py DST SRC --model student --reverse
    python projects/kd360_voxelbev/convert_checkpoint.py resnet101.pth DST --model resnet101

Every entry is renamed, or set aside because nothing reads it; anything else is refused. DST keeps
what was set aside, so that the way back is exact. The way back from a checkpoint that was trained
here fills those entries with zeros. Models: the student with any of the release's encoders, the
teacher, the auxiliary network with its student (``ta``), and ImageNet weights of torchvision's
ResNets and of efficientnet-pytorch for ``init_cfg``.
"""
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, Mapping, Tuple

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

import mmdet3d_plugin  # noqa: F401 (registers the models)
from mmdet3d_plugin.checkpoints import student_weights
from mmdet3d_plugin.conversion import (
    Layout,
    Rules,
    efficientnet_names,
    rename,
    run_converter,
    weights_of,
)
from mmdet3d_plugin.engine.cli import run_tool

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'kd360' / 'release'
ENCODERS = dict(effb0_ori='effb0', effb0='effb0-s8', effb4='effb4-s8', res50='r50', res101='r101')
BACKBONES = {f'resnet{depth}': dict(type='mmdet.ResNet', depth=depth, num_stages=4)
             for depth in (18, 34, 50, 101, 152)}
BACKBONES.update({f'efficientnet-{arch}': dict(type='EfficientNet', arch=arch)
                  for arch in ('b0', 'b4')})
ASIDE = 'set_aside'

_CLASSIFIER = 'classifier of ImageNet, which no output depends on'
_FEATURE_HEAD = 'head without a loss, which no output depends on'
UNUSED = {
    r'encoder(_e)?\.backbone\._fc\.(weight|bias)': _CLASSIFIER,
    r'decoder(_ta)?\.feat_head\..*': _FEATURE_HEAD,
    r'kl\d_weight': 'weight of a distillation loss',
    r'decoder_ta\.instance_(offset|center)_head\..*': 'head of the auxiliary module without a loss',
    r'adapt_(feat|b1|b2|H)\.proj\.(weight|bias)': 'layer that is never called'}
UNUSED_OF_BACKBONES = {r'fc\.(weight|bias)|_fc\.(weight|bias)': _CLASSIFIER}

_HEAD = {f'{name}.{field}': shape for name, count in (('feat', 128), ('instance_offset', 2),
                                                      ('instance_center', 1))
         for field, shape in ((f'{name}_head.0.weight', (128, 128, 3, 3)),
                              (f'{name}_head.3.weight', (count, 128, 1, 1)),
                              (f'{name}_head.3.bias', (count, )))}


def encoder_names(keys: Iterable[str], ours: str, theirs: str) -> Dict[str, str]:
    """Names of an image encoder, from prefix ``ours`` to prefix ``theirs``."""
    keys = [key for key in keys if key.startswith(ours)]
    names = {key: f'{theirs}backbone.{name}'
             for key, name in efficientnet_names(keys, f'{ours}backbone.').items()}
    rules = [(r'^backbone\.conv1\.', 'backbone.0.'), (r'^backbone\.bn1\.', 'backbone.1.'),
             (r'^backbone\.layer1\.', 'backbone.4.'), (r'^backbone\.layer2\.', 'backbone.5.'),
             (r'^backbone\.layer3\.', 'layer3.'), (r'^input_proj\.', 'channel_adapter.adapter.'),
             (r'^neck\.conv\.', 'channel_proj.'), (r'^neck\.project\.', 'depth_layer.'),
             (r'^neck\.join\.0\.conv\.', 'upsampling_layer.conv.0.'),
             (r'^neck\.join\.1\.conv\.', 'upsampling_layer.conv.3.')]
    return {key: names.get(key, theirs + rename(key[len(ours):], rules)) for key in keys}


def decoder_rules(bev_encoder: str, head: str, decoder: str) -> Rules:
    """Rules of the BEV network with its heads."""
    return [(rf'^{bev_encoder}\.stem\.conv\.', f'{decoder}.first_conv.'),
            (rf'^{bev_encoder}\.stem\.bn\.', f'{decoder}.bn1.'),
            (rf'^{bev_encoder}\.(up\d)\.conv\.', rf'{decoder}.\1_skip.upsample_layer.1.'),
            (rf'^{bev_encoder}\.', f'{decoder}.'),
            (rf'^{head}\.segmentation\.', f'{decoder}.segmentation_head.'),
            (rf'^{head}\.centerness\.', f'{decoder}.instance_center_head.'),
            (rf'^{head}\.offset\.', f'{decoder}.instance_offset_head.'),
            (rf'^({decoder}\.\w+_head)\.0\.conv\.', r'\1.0.'),
            (rf'^({decoder}\.\w+_head)\.1\.', r'\1.3.'),
            (rf'^{head}\.weights\.log_variance\.segmentation$', 'ce_weight'),
            (rf'^{head}\.weights\.log_variance\.centerness$', 'center_weight'),
            (rf'^{head}\.weights\.log_variance\.offset$', 'offset_weight')]


FUSER: Rules = [(r'^fuser\.gate\.', 'gatefusion.gate_conv.0.'),
                (r'^fuser\.refine\.conv\.', 'gatefusion.fuse_conv.0.'),
                (r'^fuser\.refine\.bn\.', 'gatefusion.fuse_conv.1.')]


def student_names(keys: Iterable[str]) -> Dict[str, str]:
    """Our names of the student to the release's."""
    rules = [(r'^camera_branch\.view_transform\.compressor\.conv\.', 'bev_compressor.0.'),
             *decoder_rules('bev_encoder', 'head', 'decoder')]
    encoder = encoder_names(keys, 'camera_branch.encoder.', 'encoder.')
    return {key: encoder.get(key) or rename(key, rules) for key in keys}


def teacher_names(keys: Iterable[str]) -> Dict[str, str]:
    """Our names of the teacher to the release's."""
    rules = [(r'^camera_branch\.view_transform\.compressor\.conv\.', 'bev_compressor_e.0.'),
             (r'^lidar_branch\.view_transform\.compressor\.conv\.', 'bev_compressor_l.0.'), *FUSER,
             *decoder_rules('bev_encoder', 'head', 'decoder')]
    encoders = {**encoder_names(keys, 'camera_branch.encoder.', 'encoder_e.'),
                **encoder_names(keys, 'lidar_branch.encoder.', 'encoder_l.')}
    return {key: encoders.get(key) or rename(key, rules) for key in keys}


def ta_names(keys: Iterable[str]) -> Dict[str, str]:
    """Our names of the distiller, student and auxiliary module, to the release's."""
    inner = {key: key.removeprefix('student.') for key in keys if key.startswith('student.')}
    student = student_names(inner.values())
    rules = [*FUSER, *decoder_rules('bev_encoder', 'head', 'decoder_ta')]
    return {key: student[inner[key]] if key in inner else
            rename(key.removeprefix('assistant.'), rules) for key in keys}


def backbone_names(keys: Iterable[str]) -> Dict[str, str]:
    """Our names of a backbone to those of efficientnet-pytorch or torchvision."""
    return efficientnet_names(keys) or {key: key for key in keys}


def config_of(model: str, encoder: str = 'effb0') -> Path:
    """The config of the release preset whose model a checkpoint fits."""
    return CONFIGS / {
        'student': f'kd360_student_{encoder}_12k_dur360bev.py',
        'teacher': 'kd360_teacher_r101-effb0_12k_dur360bev.py',
        'ta': 'kd360_distill_effb0_12k_dur360bev_am.py'}[model]


def layouts(model: str) -> Dict[str, Layout]:
    """The layouts that a checkpoint of this kind may have, by name."""
    init_default_scope('mmdet3d')
    if model in BACKBONES:
        built = MODELS.build(BACKBONES[model])
        return {model: Layout.of(built, backbone_names, UNUSED_OF_BACKBONES)}
    names = dict(student=student_names, teacher=teacher_names, ta=ta_names)[model]
    encoders = ENCODERS if model == 'student' else dict(effb0_ori='effb0')
    return {f'{model} ({name})': Layout.of(
        MODELS.build(Config.fromfile(config_of(model, encoder)).model), names, UNUSED)
        for name, encoder in encoders.items()}


def choose(found: Mapping[str, Layout], names: Iterable[str], ours: bool) -> Tuple[str, Layout]:
    """The layout that shares most names with a checkpoint."""
    names = set(names)

    def differences(item):
        layout = item[1]
        known = layout.shapes.keys() if ours else layout.names.keys()
        return len(known ^ {name for name in names if ours or not layout.reason(name)})

    return min(found.items(), key=differences)


def convert(checkpoint: Mapping, model: str) -> Tuple[dict, str]:
    """A foreign checkpoint to ours: its content and a report."""
    source = weights_of(checkpoint)
    name, layout = choose(layouts(model), source, ours=False)
    state, aside = layout.convert(source)
    lines = [f'{name}: {len(source)} entries, {len(state)} converted']
    reasons = Counter(layout.reason(key) for key in aside)
    lines += [f'  {count} set aside: {why}' for why, count in reasons.items()]
    content = {'state_dict': state, 'meta': dict(converted_from=name), ASIDE: aside}
    return content, '\n'.join(lines)


def defaults(model: str, state: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Zeros for the release's entries that nothing reads, as its strict loading expects them."""
    decoders = ['decoder'] if model in ('student', 'teacher') else ['decoder', 'decoder_ta']
    if model in BACKBONES:
        return {}
    shapes = {f'{decoder}.{key.split(".", 1)[1]}': shape for decoder in decoders
              for key, shape in _HEAD.items()
              if decoder == 'decoder_ta' or key.startswith('feat.')}
    encoder = 'encoder_e' if model == 'teacher' else 'encoder'
    if any(value.shape == (1280, 320, 1, 1) for value in state.values()):
        shapes.update({f'{encoder}.backbone._fc.weight': (1000, 1280),
                       f'{encoder}.backbone._fc.bias': (1000, )})
    if model != 'teacher':
        shapes.update({f'kl{index}_weight': () for index in (1, 2, 3)})
    if model == 'ta':
        for layer, (cout, cin) in dict(feat=(128, 128), b1=(128, 64), b2=(128, 128),
                                       H=(256, 256)).items():
            shapes.update({f'adapt_{layer}.proj.weight': (cout, cin, 1, 1),
                           f'adapt_{layer}.proj.bias': (cout, )})
    return {key: torch.zeros(shape) for key, shape in shapes.items()}


def revert(checkpoint: Mapping, model: str) -> Tuple[dict, str]:
    """Our checkpoint to a foreign one: its content and a report."""
    state = checkpoint.get('state_dict', checkpoint)
    state = student_weights(state) if model == 'student' else state
    name, layout = choose(layouts(model), state, ours=True)
    aside = checkpoint.get(ASIDE)
    filled = '' if aside else ' (zeros: this checkpoint was not converted from the release)'
    aside = aside or defaults(model, state)
    source = layout.revert(state, aside)
    content = source if model in BACKBONES else dict(global_step=0, model_state_dict=source)
    return content, (f'{name}: {len(source)} entries, {len(state)} converted, {len(aside)} that '
                     f'nothing reads{filled}')


def main() -> None:
    run_converter(__doc__, ('student', 'teacher', 'ta', *BACKBONES), convert, revert)


if __name__ == '__main__':
    run_tool(main)
