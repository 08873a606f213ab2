"""Convert BEVFusion's map segmentation checkpoints to this package, and back.

    python projects/bridgeta/convert_checkpoint.py camera-only-seg.pth DST --model camera
    python projects/bridgeta/convert_checkpoint.py bevfusion-seg.pth DST --model fusion
    python projects/bridgeta/convert_checkpoint.py lidar-only-seg.pth DST --model lidar
    python projects/bridgeta/convert_checkpoint.py bevfusion-seg.pth DST --model teacher
    python projects/bridgeta/convert_checkpoint.py DST SRC --model camera --reverse

Every entry is renamed, or set aside because nothing reads it; anything else is refused. ``camera``
is BridgeTA's student. ``teacher`` takes from the fusion model what BridgeTA's aligned teacher
shares with it, the camera and the LiDAR branch; fuser, decoder and head have other channels and are
trained. Sparse kernels may have either layout of spconv.
"""
from pathlib import Path
from typing import Dict, Iterable, Mapping, Tuple

from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

import mmdet3d_plugin  # noqa: F401 (registers the models)
from mmdet3d_plugin.conversion import Layout, rename, run_converter, weights_of
from mmdet3d_plugin.engine.cli import run_tool

CONFIGS = {model: Path(__file__).resolve().parents[2] / f'configs/bridgeta/release/{name}.py'
           for model, name in dict(camera='bevfusion_student_swint_20e_nuscenes',
                                   fusion='bevfusion_teacher_swint-voxel_20e_nuscenes',
                                   lidar='bevfusion_teacher_voxel_20e_nuscenes').items()}
MODELS_HERE = (*CONFIGS, 'teacher')
SHARED = ('camera_branch.', 'lidar_branch.')
ASIDE = 'set_aside'

UNUSED = {r'encoders\.camera\.vtransform\.(dx|bx|nx|frustum)': 'constant of the view transform'}
UNALIGNED = {r'(fuser|decoder|heads)\..*': "fuser, decoder and head, of other channels than the "
                                           "aligned teacher's"}
_CAMERA, _LIDAR = 'encoders.camera', 'encoders.lidar.backbone'
RULES = [
    (r'^camera_branch\.encoder\.backbone\.', f'{_CAMERA}.backbone.'),
    (r'^camera_branch\.encoder\.neck\.laterals\.', f'{_CAMERA}.neck.lateral_convs.'),
    (r'^camera_branch\.encoder\.neck\.convs\.', f'{_CAMERA}.neck.fpn_convs.'),
    (r'^camera_branch\.view_transform\.depthnet\.', f'{_CAMERA}.vtransform.depthnet.'),
    *((rf'^camera_branch\.view_transform\.compressor\.layers\.{n}\.{part}\.',
       f'{_CAMERA}.vtransform.downsample.{3 * n + k}.')
      for n in range(3) for k, part in enumerate(('conv', 'bn'))),
    *((rf'^lidar_branch\.encoder\.{ours}\.{part}\.', f'{_LIDAR}.{theirs}.{k}.')
      for ours, theirs in (('stem', 'conv_input'), ('out', 'conv_out'))
      for k, part in enumerate(('conv', 'norm'))),
    *((rf'^lidar_branch\.encoder\.stages\.{n}\.', f'{_LIDAR}.encoder_layers.encoder_layer{n + 1}.')
      for n in range(4)),
    (r'(encoder_layer\d\.\d)\.norm(\d)\.', r'\1.bn\2.'),
    (r'(encoder_layer\d\.2)\.conv\.', r'\1.0.'), (r'(encoder_layer\d\.2)\.norm\.', r'\1.1.'),
    (r'^fuser\.conv\.conv\.', 'fuser.0.'), (r'^fuser\.conv\.bn\.', 'fuser.1.'),
    (r'^bev_encoder\.backbone\.stages\.', 'decoder.backbone.'),
    (r'^bev_encoder\.neck\.fuse\.0\.conv\.', 'decoder.neck.fuse.0.'),
    (r'^bev_encoder\.neck\.fuse\.0\.bn\.', 'decoder.neck.fuse.1.'),
    (r'^bev_encoder\.neck\.fuse\.1\.conv\.', 'decoder.neck.fuse.3.'),
    (r'^bev_encoder\.neck\.fuse\.1\.bn\.', 'decoder.neck.fuse.4.'),
    (r'^bev_encoder\.neck\.refine\.conv\.', 'decoder.neck.upsample.1.'),
    (r'^bev_encoder\.neck\.refine\.bn\.', 'decoder.neck.upsample.2.'),
    (r'^bev_encoder\.', 'decoder.'),
    *((rf'^head\.segmentation\.{n}\.{part}\.', f'heads.map.classifier.{3 * n + k}.')
      for n in range(2) for k, part in enumerate(('conv', 'bn'))),
    (r'^head\.segmentation\.2\.', 'heads.map.classifier.6.')]


def names(keys: Iterable[str]) -> Dict[str, str]:
    """Our names to the release's."""
    return {key: rename(key, RULES) for key in keys}


def layout(model: str) -> Layout:
    """The layout of a checkpoint of the release."""
    init_default_scope('mmdet3d')
    built = MODELS.build(Config.fromfile(CONFIGS.get(model, CONFIGS['fusion'])).model)
    if model != 'teacher':
        return Layout.of(built, names, UNUSED)
    whole = Layout.of(built, names, {})
    shared = {theirs: ours for theirs, ours in whole.names.items() if ours.startswith(SHARED)}
    return Layout(shared, {ours: whole.shapes[ours] for ours in shared.values()},
                  {**UNUSED, **UNALIGNED})


def first_layout(source: Mapping[str, Tensor], fitting: Layout) -> Dict[str, Tensor]:
    """Sparse kernels of spconv 2, (out, k, k, k, in), as those of spconv 1, (k, k, k, in, out)."""
    def kernel(name, value):
        shape = fitting.shapes.get(fitting.names.get(name))
        if value.dim() == 5 and shape not in (None, tuple(value.shape)):
            turned = value.movedim(0, -1)
            return turned.contiguous() if tuple(turned.shape) == shape else value
        return value
    return {name: kernel(name, value) for name, value in source.items()}


def convert(checkpoint: Mapping, model: str) -> Tuple[dict, str]:
    """The release's checkpoint to ours: its content and a report."""
    fitting = layout(model)
    source = first_layout(weights_of(checkpoint), fitting)
    state, aside = fitting.convert(source)
    lines = [f'{model}: {len(source)} entries, {len(state)} converted']
    for why in fitting.unused.values():
        count = sum(fitting.reason(key) == why for key in aside)
        lines += [f'  {count} set aside: {why}'] if count else []
    if model == 'teacher':
        lines.append('  a part of a model: give it to the branches of the teacher by init_cfg')
    return {'state_dict': state, 'meta': dict(converted_from=model), ASIDE: aside}, '\n'.join(lines)


def revert(checkpoint: Mapping, model: str) -> Tuple[dict, str]:
    """Our checkpoint to the release's: its content and a report."""
    state, aside = checkpoint.get('state_dict', checkpoint), checkpoint.get(ASIDE, {})
    source = layout(model).revert(state, aside)
    return dict(state_dict=source), (
        f'{model}: {len(source)} entries, {len(state)} converted, {len(aside)} that nothing reads')


def main() -> None:
    run_converter(__doc__, MODELS_HERE, convert, revert)


if __name__ == '__main__':
    run_tool(main)
