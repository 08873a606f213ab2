"""Convert checkpoints of detectors on nuScenes to this package, and back.

    python projects/detection/convert_checkpoint.py bevdepth4d-r50.pth DST --model bevdepth4d-r50
    python projects/detection/convert_checkpoint.py SRC DST --model bevdepth-r50-da
    python projects/detection/convert_checkpoint.py SRC DST --model centerpoint-voxel
    python projects/detection/convert_checkpoint.py DST SRC --model bevdepth4d-r50 --reverse

bevdepth4d-r50: BEVDet's, and the students of DistillBEV and DualDistill, whose adapters are set
aside. bevdepth-*: Megvii's BEVDepth. lgkd-student, lgkd-teacher: one of the two models in a file of
BEV-LGKD, whose image backbone, neck and cells are found in the file. centerpoint-pillar, -voxel,
-dcn, -voxel-dcn: mmdetection3d's model zoo of version 1. centerpoint-pillar-0.17, mvp-pillar-0.17:
dynamic pillars of mmdetection3d 0.17.

Every entry is converted, or set aside because nothing reads it; anything else is refused. Constants
of the view transform must be those of the model. Boxes of version 0 (bevdepth4d-r50 and *-0.17) had
width before length and another yaw; the last layers of the heads are changed such that the boxes
are those of today. Pillars of 0.17 did not know the height of a point above the pillar's centre:
its weights are 0, and in the reverse direction part of those of the height, which leaves the
function as it is.
"""
import re
from pathlib import Path
from typing import Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import mmdet3d_plugin  # noqa: F401 (registers the models)
from mmdet3d_plugin.checkpoints import shapes_of, state_difference
from mmdet3d_plugin.conversion import Layout, Rules, rename, run_converter, weights_of
from mmdet3d_plugin.engine.cli import run_tool
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry.lifting import frustum

FOLDER = Path(__file__).resolve().parents[2] / 'configs/detection/release'
BACKBONES = ('r18', 'mobilenetv2', 'r50', 'r101')
BEVDEPTH = tuple(f'bevdepth-{name}{da}' for name in BACKBONES for da in ('', '-da'))
LGKD = ('lgkd-student', 'lgkd-teacher')
CENTERPOINT = {
    'centerpoint-pillar': 'centerpoint_teacher_hardpillar_20e_nuscenes',
    'centerpoint-voxel': 'centerpoint_teacher_voxel_20e_nuscenes',
    'centerpoint-dcn': 'centerpoint_teacher_hardpillar_20e_nuscenes_dcn',
    'centerpoint-voxel-dcn': 'centerpoint_teacher_voxel_20e_nuscenes_dcn',
    'centerpoint-pillar-0.17': 'centerpoint_teacher_pillar_20e_nuscenes',
    'mvp-pillar-0.17': 'centerpoint_teacher_pillar_20e_nuscenes'}
MODELS_HERE = ('bevdepth4d-r50', *BEVDEPTH, *LGKD, *CENTERPOINT)
MVP = dict(in_channels=17, kind_column=15)  # painted and virtual points
ASIDE = 'set_aside'


# Names --------------------------------------------------------------------------------------------

_BRANCH, _DECODER = 'camera_branch', 'bev_encoder'
BEVDEPTH_RULES = [
    (r'^head\.', 'head!.'),
    (rf'^{_BRANCH}\.encoder\.backbone\.', 'backbone!.img_backbone.'),
    (rf'^{_BRANCH}\.encoder\.neck\.', 'backbone!.img_neck.'),
    (rf'^{_BRANCH}\.view_transform\.depth_net\.', 'backbone!.depth_net.'),
    (r'depth_conv\.3\.(aspp\d)\.conv\.', r'depth_conv.3.\1.atrous_conv.'),
    (r'depth_conv\.3\.pool\.conv\.', 'depth_conv.3.global_avg_pool.1.'),
    (r'depth_conv\.3\.pool\.bn\.', 'depth_conv.3.global_avg_pool.2.'),
    (r'depth_conv\.3\.join\.conv\.', 'depth_conv.3.conv1.'),
    (r'depth_conv\.3\.join\.bn\.', 'depth_conv.3.bn1.'),
    *((rf'^{_BRANCH}\.view_transform\.refine\.{ours}\.{part}\.',
       f'backbone!.depth_aggregation_net.{theirs}.')
      for ours, part, theirs in (
          ('reduce_conv', 'conv', 'reduce_conv.0'), (r'reduce_conv', 'bn', 'reduce_conv.1'),
          (r'conv\.0', 'conv', 'conv.0'), (r'conv\.0', 'bn', 'conv.1'),
          (r'conv\.1', 'conv', 'conv.3'), (r'conv\.1', 'bn', 'conv.4'))),
    (rf'^{_BRANCH}\.view_transform\.refine\.out_conv\.',
     'backbone!.depth_aggregation_net.out_conv.0.'),
    (rf'^{_DECODER}\.backbone\.', 'head!.trunk.'), (rf'^{_DECODER}\.neck\.', 'head!.neck.')]
_VIEW, _NECK = 'img_view_transformer', 'img_bev_encoder_neck'
BEVDET_RULES = [
    (rf'^{_BRANCH}\.encoder\.backbone\.', 'img_backbone.'),
    (rf'^{_BRANCH}\.encoder\.neck\.laterals\.(\d)\.', r'img_neck.lateral_convs.\1.conv.'),
    (rf'^{_BRANCH}\.encoder\.neck\.conv\.', 'img_neck.fpn_convs.0.conv.'),
    *((rf'^{_BRANCH}\.view_transform\.depth_net\.{ours}\.', f'{_VIEW}.{theirs}.')
      for ours, theirs in (('context', 'featnet'), ('input_conv', 'se.input_conv'),
                           ('gate', 'se.fc'), ('blocks', 'extra_depthnet.layers.0'),
                           ('deform', 'dcn'), ('depth', 'depthnet'))),
    (rf'^{_BRANCH}\.pre_process\.stages\.', 'pre_process_net.layers.'),
    (rf'^{_DECODER}\.backbone\.stages\.', 'img_bev_encoder_backbone.layers.'),
    *((rf'^{_DECODER}\.neck\.{ours}\.', f'{_NECK}.{theirs}.') for ours, theirs in (
        (r'fuse\.0\.conv', 'conv.0'), (r'fuse\.0\.bn', 'conv.1'), (r'fuse\.1\.conv', 'conv.3'),
        (r'fuse\.1\.bn', 'conv.4'), (r'refine\.conv', 'up2.1'), (r'refine\.bn', 'up2.2'),
        (r'out\.0', 'up2.4'), (r'out\.1', 'up2.5'))),
    (r'^head\.', 'pts_bbox_head.')]
_MIDDLE = 'pts_middle_encoder'
CENTERPOINT_RULES = [
    (r'^lidar_branch\.linear\.', 'pts_voxel_encoder.pfn_layers.0.linear.'),
    (r'^lidar_branch\.norm\.', 'pts_voxel_encoder.pfn_layers.0.norm.'),
    *((rf'^lidar_branch\.encoder\.{ours}\.{part}\.', f'{_MIDDLE}.{theirs}.{k}.')
      for ours, theirs in (('stem', 'conv_input'), ('out', 'conv_out'))
      for k, part in enumerate(('conv', 'norm'))),
    *((rf'^lidar_branch\.encoder\.stages\.{n}\.', f'{_MIDDLE}.encoder_layers.encoder_layer{n + 1}.')
      for n in range(4)),
    (r'(encoder_layer\d\.\d)\.norm(\d)\.', r'\1.bn\2.'),
    (r'(encoder_layer\d\.2)\.conv\.', r'\1.0.'), (r'(encoder_layer\d\.2)\.norm\.', r'\1.1.'),
    (rf'^{_DECODER}\.backbone\.', 'pts_backbone.'), (rf'^{_DECODER}\.neck\.', 'pts_neck.'),
    (r'^head\.', 'pts_bbox_head.')]
DYNAMIC_RULES = [*CENTERPOINT_RULES, (r'pfn_layers\.0\.linear\.', 'pfn_layers.0.0.'),
                 (r'pfn_layers\.0\.norm\.', 'pfn_layers.0.1.')]


# Values -------------------------------------------------------------------------------------------

class Edit(NamedTuple):
    """Entries whose values differ: our names, and both directions."""
    pattern: str
    into: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def _swap(last: Tensor) -> Tensor:
    """(width, length, height) to (length, width, height), or back."""
    return last[[1, 0, 2]]


def _turn(last: Tensor) -> Tensor:
    """Sine and cosine of the yaw to those of ``-yaw - pi / 2``, which is the way back, too."""
    return -last[[1, 0]]


def _permuted(*axes: int) -> Tuple[Callable, Callable]:
    back = sorted(range(len(axes)), key=axes.__getitem__)
    return tuple(lambda w, order=order: w.permute(order).contiguous() for order in (axes, back))


BOX_EDITS = (Edit(r'head\.task_heads\.\d+\.dim\.1\..*', _swap, _swap),
             Edit(r'head\.task_heads\.\d+\.rot\.1\..*', _turn, _turn))
PILLAR_EDITS = (Edit(r'lidar_branch\.linear\.weight', lambda w: nn.functional.pad(w, (0, 1)),
                     lambda w: w[:, :-1].contiguous()), *BOX_EDITS)
_KERNEL = r'lidar_branch\.encoder\..*conv\d?\.weight'
# Of spconv 1, (z, y, x, in, out), and 2, (out, z, y, x, in), to (y, x, z, in, out).
KERNEL_EDITS = {
    1: (Edit(_KERNEL, *_permuted(1, 2, 0, 3, 4)), ),
    2: (Edit(_KERNEL, *_permuted(2, 3, 1, 4, 0)), )}


def fold_height(state: Mapping[str, Tensor], middle: float) -> Dict[str, Tensor]:
    """The same pillars without the height above their centre, whose weights become 0.

    ``w (z - middle)`` is ``w z`` and a constant, which the mean of the batch norm takes up.
    """
    weight, mean = 'lidar_branch.linear.weight', 'lidar_branch.norm.running_mean'
    state = dict(state)
    extra = state[weight][:, -1]
    folded = state[weight].clone()
    folded[:, 2], folded[:, -1] = folded[:, 2] + extra, 0
    return {**state, weight: folded, mean: state[mean] + extra * middle}


# Constants ----------------------------------------------------------------------------------------

def lift_constants(model: nn.Module, size: Tuple[int, int]) -> Dict[str, Tensor]:
    """What the releases store of the view transform; positions of the frustum without a 4th value.

    Args:
        model (nn.Module): Ours.
        size (tuple): (H, W) of the images.
    """
    lift = model.camera_branch.view_transform
    grid, feature_size = lift.grid, tuple(n // 16 for n in size)
    bounds = torch.tensor([grid.x_range, grid.y_range, grid.z_range])
    step = torch.tensor([grid.resolution, grid.resolution, grid.level_height])
    count = ((bounds[:, 1] - bounds[:, 0]) / step).round().long()
    position, depth = frustum(size, feature_size, lift.depths, lift.pixel)
    points = torch.cat([position, depth[:, None]], 1)
    return dict(step=step, first=bounds[:, 0] + step / 2, count=count,
                frustum=points.unflatten(0, (-1, *feature_size)))


def bevdepth_constants(model: nn.Module, size: Tuple[int, int]) -> Dict[str, Tensor]:
    """Of Megvii's BEVDepth; see :func:`lift_constants`."""
    found = lift_constants(model, size)
    return {'backbone!.voxel_size': found['step'], 'backbone!.voxel_coord': found['first'],
            'backbone!.voxel_num': found['count'],
            'backbone!.frustum': nn.functional.pad(found['frustum'], (0, 1), value=1.0)}


def bevdet_constants(model: nn.Module, size: Tuple[int, int]) -> Dict[str, Tensor]:
    """Of BEVDet; see :func:`lift_constants`."""
    found = lift_constants(model, size)
    return {f'{_VIEW}.{name}': found[key] for name, key in (
        ('dx', 'step'), ('bx', 'first'), ('nx', 'count'), ('frustum', 'frustum'))}


# Models -------------------------------------------------------------------------------------------

class Release(NamedTuple):
    """A model and how a foreign code base stores it.

    Attributes:
        config (Config): Of our model.
        rules (sequence): Our names to theirs; ``!`` is replaced by ``part``.
        part (str): Suffix of a model's parts in a file with two.
        constants (callable, optional): (our model, image size) to the entries that must be equal.
        unused (dict): Pattern of their names without a counterpart, to the reason.
        edits (tuple): Entries whose values differ.
        prefix (str): Of their names in a file.
        note (str): What has to be changed in the config's file.
    """
    config: Config
    rules: Rules
    part: str = ''
    constants: Optional[Callable] = None
    unused: Mapping[str, str] = {}
    edits: Sequence[Edit] = ()
    prefix: str = ''
    note: str = ''

    def layout(self, model: nn.Module) -> Layout:
        """Of a built model; shapes are those of the foreign entries."""
        built = Layout.of(model, self._names, {**self._verified(model), **self.unused})
        return built._replace(shapes={name: self._foreign(name, shape)
                                      for name, shape in built.shapes.items()})

    def constants_of(self, model: nn.Module) -> Dict[str, Tensor]:
        """Foreign entries that are functions of the config."""
        if self.constants is None:
            return {}
        return {name.replace('!', self.part): value for name, value in self.constants(
            model, tuple(self.config.image_size)).items()}

    def edit(self, name: str) -> Optional[Edit]:
        """Of one of our entries."""
        return next((edit for edit in self.edits if re.fullmatch(edit.pattern, name)), None)

    def _names(self, keys: Iterable[str]) -> Dict[str, str]:
        return {key: rename(key, self.rules).replace('!', self.part) for key in keys}

    def _verified(self, model):
        return {re.escape(name): 'constant of the view transform'
                for name in self.constants_of(model)}

    def _foreign(self, name, shape):
        edit = self.edit(name)
        return shape if edit is None else tuple(edit.back(torch.empty(shape)).shape)


def release_of(model: str, keys: Mapping[str, Tensor], sparse: int = 1) -> Release:
    """The release of a ``--model``.

    Args:
        model (str): One of ``MODELS_HERE``.
        keys (dict): Entries of the file, foreign or ours, which tell variants apart.
        sparse (int): Version of spconv whose kernels the foreign file has.
    """
    if model == 'bevdepth4d-r50':
        norm = any(name in keys for name in (f'{_NECK}.up2.5.weight',
                                             f'{_DECODER}.neck.out.1.weight'))
        return Release(
            _config('bevdepth4d_student_r50_24e_nuscenes' + '_norm' * norm), BEVDET_RULES,
            constants=bevdet_constants, edits=BOX_EDITS,
            unused={r'(channel|spatial)_wise_adaptations\..*': 'adapters of a distillation'})
    if model in CENTERPOINT:
        config, note = _config(CENTERPOINT[model]), ''
        if model == 'mvp-pillar-0.17':
            config.model.lidar_branch.update(MVP)
            note = ', lidar_branch.in_channels=17, lidar_branch.kind_column=15'
        if model.endswith('0.17'):
            return Release(config, DYNAMIC_RULES, edits=PILLAR_EDITS, note=note)
        return Release(config, CENTERPOINT_RULES, edits=KERNEL_EDITS[sparse])
    if model in LGKD:
        return _lgkd(model, keys)
    backbone, *refine = model.removeprefix('bevdepth-').split('-')
    if model == 'bevdepth-r50-da':
        config, note = _config('bevdepth_student_r50_20e_nuscenes_da'), ''
    else:
        config, note = _config(f'bevdepth_student_{backbone}_24e_nuscenes'), ''
        if refine:
            config.model.camera_branch.view_transform.refine = dict(type='DepthRefinement')
            note = ", view_transform.refine=dict(type='DepthRefinement')"
    return Release(config, BEVDEPTH_RULES, constants=bevdepth_constants, prefix='model.',
                   note=note)


def _config(name: str) -> Config:
    return Config.fromfile(FOLDER / f'{name}.py')


def _lgkd(model: str, keys: Mapping[str, Tensor]) -> Release:
    """One of the two models of a file: that which its entries show."""
    part, other = ('_s', '') if model == 'lgkd-student' else ('', '_s')
    ours = any(name.startswith(f'{_BRANCH}.') for name in keys)
    view = f'{_BRANCH}.view_transform' if ours else f'backbone{part}'
    backbone = f'{_BRANCH}.encoder.backbone' if ours else f'backbone{part}.img_backbone'
    name = _backbone_of({key.removeprefix(f'{backbone}.') for key in keys
                         if key.startswith(f'{backbone}.')})
    config = _config(f'bevdepth_student_{name}_24e_nuscenes')
    width = keys.get(f'{view}.depth_net.reduce_conv.0.weight', torch.empty(1, 512)).shape[1]
    cells = keys.get(f'backbone{part}.voxel_num', torch.tensor([256]))[0]
    net = config.model
    net.camera_branch.encoder.neck.out_channels = [width // 4] * 4
    net.camera_branch.view_transform.in_channels = width
    net.grid.resolution = net.camera_branch.view_transform.resolution = 102.4 / int(cells)
    return Release(
        config, BEVDEPTH_RULES, part, bevdepth_constants, prefix='model.',
        note=f', an image neck of {width} channels, cells of {net.grid.resolution} m', unused={
            rf'backbone{part}\.fine_depth_net\..*': 'the finer depth, which distillation alone has',
            rf'(backbone|head){other}\..*': f'the {"teacher" if part else "student"}'})


def _backbone_of(keys: Iterable[str]) -> str:
    """Which of ``BACKBONES`` has these entries."""
    if 'conv1.conv.weight' in keys:
        return 'mobilenetv2'
    if 'layer1.0.conv3.weight' not in keys:
        return 'r18'
    return 'r101' if 'layer3.22.conv1.weight' in keys else 'r50'


def build(release: Release) -> nn.Module:
    """Our model."""
    init_default_scope('mmdet3d')
    return MODELS.build(release.config.model)


# Both directions ----------------------------------------------------------------------------------

def convert_state(source: Mapping[str, Tensor], release: Release, model: nn.Module
                  ) -> Tuple[Dict[str, Tensor], Dict[str, Tensor], Layout]:
    """Foreign entries to ours, those set aside, and the layout.

    Raises:
        UserError: An entry is missing, unknown, of another shape, not finite, or a constant of
            another image size, grid or depth.
    """
    layout, constants = release.layout(model), release.constants_of(model)
    state, aside = layout.convert(source)
    for name, expected in constants.items():
        if name not in aside:
            raise UserError(f'{name} is missing')
        if aside[name].shape != expected.shape or not torch.allclose(
                aside[name].double(), expected.double(), rtol=1e-4, atol=1e-3):
            raise UserError(f'{name} is that of another image size, grid or depth')
    for name, value in state.items():
        edit = release.edit(name)
        state[name] = value if edit is None else edit.into(value)
    return state, aside, layout


def revert_state(state: Mapping[str, Tensor], aside: Mapping[str, Tensor], release: Release,
                 model: nn.Module) -> Dict[str, Tensor]:
    """The reverse of :func:`convert_state`; constants are made where none were set aside."""
    problem = state_difference(shapes_of(model), state)
    if problem:
        raise UserError(problem)
    if release.edits is PILLAR_EDITS:
        low, high = (model.lidar_branch.point_range[n] for n in (2, 5))
        state = fold_height(state, (low + high) / 2)
    edits = {name: release.edit(name) for name in state}
    state = {name: value if edits[name] is None else edits[name].back(value)
             for name, value in state.items()}
    return release.layout(model).revert(state, {**release.constants_of(model), **aside})


def convert(checkpoint: Mapping, model: str) -> Tuple[dict, str]:
    """A foreign checkpoint to ours: its content and a report."""
    source, prefix = _without_prefix(checkpoint)
    kernel = source.get(f'{_MIDDLE}.conv_input.0.weight', torch.empty(3, 3))
    sparse = 1 if kernel.shape[0] == kernel.shape[1] else 2
    release = release_of(model, source, sparse)
    state, aside, layout = convert_state(source, release, build(release))
    lines = [f'{model}: {len(source)} entries, {len(state)} converted']
    for why in dict.fromkeys(layout.unused.values()):
        count = sum(layout.reason(name) == why for name in aside)
        lines += [f'  {count} set aside: {why}'] if count else []
    name = Path(release.config.filename).relative_to(FOLDER.parents[2]).as_posix()
    lines.append(f'  config: {name}{release.note}')
    meta = dict(converted_from=model, prefix=prefix, sparse=sparse)
    return {'state_dict': state, 'meta': meta, ASIDE: aside}, '\n'.join(lines)


def revert(checkpoint: Mapping, model: str) -> Tuple[dict, str]:
    """Our checkpoint to the foreign one: its content and a report."""
    state, aside = checkpoint.get('state_dict', checkpoint), checkpoint.get(ASIDE, {})
    meta = checkpoint.get('meta', {})
    release = release_of(model, {**aside, **state}, meta.get('sparse', 1))
    source = revert_state(state, aside, release, build(release))
    prefix = meta.get('prefix', release.prefix)
    return dict(state_dict={f'{prefix}{name}': value for name, value in source.items()}), (
        f'{model}: {len(source)} entries, {len(state)} converted, '
        f'{len(source) - len(state)} that nothing reads')


def _without_prefix(checkpoint: Mapping) -> Tuple[Dict[str, Tensor], str]:
    """The weights, and what all names started with."""
    state, whole = weights_of(checkpoint), checkpoint.get('state_dict', checkpoint)
    first = next((name for name, value in whole.items() if isinstance(value, Tensor)), '')
    return state, first.removesuffix(next(iter(state), ''))


def main() -> None:
    run_converter(__doc__, MODELS_HERE, convert, revert)


if __name__ == '__main__':
    run_tool(main)
