"""CenterPoint of mmdetection3d's model zoo and of its version 0.17: names, shapes, maths.

Written from the definitions, with functions on the releases' names; nothing of the package.
"""
from dataclasses import dataclass
from typing import Tuple

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.ops import deform_conv2d

from .bevdepth_release import CLASSES, Net, affine, bn, head_shapes, numbered, weights


@dataclass(frozen=True)
class Sizes:
    """Of a model; ``kind`` is ``'hard'``, ``'dynamic'`` (version 0.17) or ``'voxel'``."""
    kind: str = 'hard'
    values: int = 5  # of a point
    pillar: int = 64
    layers: Tuple[int, ...] = (3, 5, 5)
    widths: Tuple[int, ...] = (64, 128, 256)
    neck: int = 128
    head: int = 64
    deform: bool = False
    reach: float = 51.2
    max_points: int = 20

    @property
    def strides(self):
        return (1, 2) if self.kind == 'voxel' else (0.5, 1, 2)


VOXEL = Sizes('voxel', layers=(5, 5), widths=(128, 256), neck=256, max_points=10)
M = 'pts_middle_encoder'


def dcn_head_shapes(prefix, into, width):
    out = {f'{prefix}.shared_conv.conv.weight': (width, into, 3, 3),
           **bn(f'{prefix}.shared_conv.bn', width)}
    for t, classes in enumerate(CLASSES):
        p = f'{prefix}.task_heads.{t}'
        for name in ('cls', 'reg'):
            out |= {f'{p}.feature_adapt_{name}.weight': (width, width // 4, 3, 3),
                    **affine(f'{p}.feature_adapt_{name}.conv_offset', 18, width, 3, 3)}
        branches = {f'task_head.{name}': c for name, c in dict(
            reg=2, height=1, dim=3, rot=2, vel=2).items()} | dict(cls_head=classes)
        for name, c in branches.items():
            out |= {f'{p}.{name}.0.conv.weight': (64, width, 3, 3), **bn(f'{p}.{name}.0.bn', 64),
                    **affine(f'{p}.{name}.1', c, 64, 3, 3)}
    return out


def sparse_shapes(values):
    """Kernels (z, y, x, in, out), of spconv 1."""
    out = {f'{M}.conv_input.0.weight': (3, 3, 3, values, 16), **bn(f'{M}.conv_input.1', 16)}
    for i, c in enumerate((16, 32, 64, 128), 1):
        p = f'{M}.encoder_layers.encoder_layer{i}'
        for j in range(2):
            for k in (1, 2):
                out |= {f'{p}.{j}.conv{k}.weight': (3, 3, 3, c, c), **bn(f'{p}.{j}.bn{k}', c)}
        if i < 4:
            out |= {f'{p}.2.0.weight': (3, 3, 3, c, 2 * c), **bn(f'{p}.2.1', 2 * c)}
    return out | {f'{M}.conv_out.0.weight': (3, 1, 1, 128, 128), **bn(f'{M}.conv_out.1', 128)}


def shapes(z=Sizes()):
    p = 'pts_voxel_encoder.pfn_layers.0'
    if z.kind == 'voxel':
        out, into = sparse_shapes(z.values), 256
    elif z.kind == 'hard':
        out = {f'{p}.linear.weight': (z.pillar, z.values + 6), **bn(f'{p}.norm', z.pillar)}
        into = z.pillar
    else:
        out, into = {f'{p}.0.weight': (z.pillar, z.values + 5), **bn(f'{p}.1', z.pillar)}, z.pillar
    for s, (c, count) in enumerate(zip(z.widths, z.layers)):
        for k in range(count + 1):
            b = f'pts_backbone.blocks.{s}.{3 * k}'
            out |= {f'{b}.weight': (c, into if k == 0 else c, 3, 3),
                    **bn(f'pts_backbone.blocks.{s}.{3 * k + 1}', c)}
        into = c
    for n, (c, stride) in enumerate(zip(z.widths, z.strides)):
        k, pair = (2, (z.neck, c)) if stride < 1 else (stride, (c, z.neck))
        pair = (z.neck, c) if stride <= 1 else pair  # a convolution without a stride, too
        out |= {f'pts_neck.deblocks.{n}.0.weight': (*pair, k, k),
                **bn(f'pts_neck.deblocks.{n}.1', z.neck)}
    head = dcn_head_shapes if z.deform else head_shapes
    return out | head('pts_bbox_head', z.neck * len(z.widths), z.head)


def release(z=Sizes(), seed=0):
    state = weights(shapes(z), {}, seed)
    for name, value in state.items():  # the fan-in of a sparse kernel is another one
        if value.dim() == 5:
            fan_in = value[..., 0].numel()
            state[name] = value * (value[0].numel() / fan_in)**0.5
    return state


def file(z=Sizes()):
    return numbered(shapes(z), {})


# The maths ----------------------------------------------------------------------------------------


def groups(points, size, z):
    """Points of each cell (x, y, z), in order."""
    low = torch.tensor([-z.reach, -z.reach, -5.0])
    count = [round(2 * z.reach / s) for s in size[:2]] + [round(8 / size[2])]
    found = {}
    for point in points:
        cell = tuple(((point[:3] - low) / torch.tensor(size)).floor().long().tolist())
        if all(0 <= c < n for c, n in zip(cell, count)):
            found.setdefault(cell, []).append(point)
    return {cell: torch.stack(own) for cell, own in found.items()}, count


class Release(Net):
    """One cloud (P, F) to raw outputs."""

    def __init__(self, state, sizes):
        super().__init__(state)
        self.z = sizes

    def pillars(self, points):
        z, p = self.z, 'pts_voxel_encoder.pfn_layers.0'
        found, count = groups(points, (0.2, 0.2, 8.0), z)
        canvas = torch.zeros(z.pillar, count[1], count[0])  # y, x
        for (x, y, _), own in found.items():
            centre = torch.tensor([(x + 0.5) * 0.2 - z.reach, (y + 0.5) * 0.2 - z.reach, -1.0])
            if z.kind == 'dynamic':
                features = torch.cat([own, own[:, :3] - own[:, :3].mean(0),
                                      own[:, :2] - centre[:2]], 1)
                features = F.linear(features, self.state[f'{p}.0.weight'])
                features = self.bn(f'{p}.1', features, 1e-3)
            else:
                own = own[:z.max_points]
                features = torch.cat([own, own[:, :3] - own[:, :3].mean(0),
                                      own[:, :3] - centre], 1)
                features = F.pad(features, (0, 0, 0, z.max_points - len(own)))
                features = F.linear(features, self.state[f'{p}.linear.weight'])
                features = self.bn(f'{p}.norm', features, 1e-3)
            canvas[:, y, x] = features.relu().amax(0)
        return canvas[None]

    def sparse(self, name, norm, x, active, stride=1, padding=1, submanifold=False):
        kernel = self.state[f'{name}.weight'].permute(4, 3, 0, 1, 2)
        if not submanifold:
            ones = torch.ones(1, 1, *kernel.shape[2:])
            active = (F.conv3d(active, ones, stride=stride, padding=padding) > 0).float()
        return self.bn(norm, F.conv3d(x, kernel, stride=stride, padding=padding), 1e-3), active

    def voxels(self, points):
        """By dense convolution of (z, y, x) and a mask of the active sites."""
        found, count = groups(points, (0.1, 0.1, 0.2), self.z)
        x = torch.zeros(1, self.z.values, count[2] + 1, count[1], count[0])
        active = torch.zeros(1, 1, *x.shape[2:])
        for (i, j, k), own in found.items():
            x[0, :, k, j, i], active[..., k, j, i] = own[:self.z.max_points].mean(0), 1
        x, _ = self.sparse(f'{M}.conv_input.0', f'{M}.conv_input.1', x, active, submanifold=True)
        x = x.relu() * active
        for i in range(1, 5):
            p = f'{M}.encoder_layers.encoder_layer{i}'
            for j in range(2):
                b = f'{p}.{j}'
                y, _ = self.sparse(f'{b}.conv1', f'{b}.bn1', x, active, submanifold=True)
                y, _ = self.sparse(f'{b}.conv2', f'{b}.bn2', y.relu() * active, active,
                                   submanifold=True)
                x = (x + y).relu() * active
            if i < 4:
                padding = (0, 1, 1) if i == 3 else 1
                x, active = self.sparse(f'{p}.2.0', f'{p}.2.1', x, active, 2, padding)
                x = x.relu() * active
        x, active = self.sparse(f'{M}.conv_out.0', f'{M}.conv_out.1', x, active, (2, 1, 1), 0)
        return (x.relu() * active).flatten(1, 2)

    def deform_head(self, x):
        shared = self.conv('pts_bbox_head.shared_conv.conv', x, 'pts_bbox_head.shared_conv.bn')
        outs = {}
        for t in range(len(CLASSES)):
            p = f'pts_bbox_head.task_heads.{t}'
            for kind, names in (('cls', ('heatmap', )),
                                ('reg', ('reg', 'height', 'dim', 'rot', 'vel'))):
                q = f'{p}.feature_adapt_{kind}'
                offset = self.conv(f'{q}.conv_offset', shared, relu=False)
                adapted = deform_conv2d(shared, offset, self.state[f'{q}.weight'], 1, 1, 1, 4, 1)
                for name in names:
                    b = f'{p}.cls_head' if kind == 'cls' else f'{p}.task_head.{name}'
                    y = self.conv(f'{b}.0.conv', adapted, f'{b}.0.bn')
                    outs[f'task{t}.{name}'] = self.conv(f'{b}.1', y, relu=False)
        return outs

    def __call__(self, points):
        x = self.voxels(points) if self.z.kind == 'voxel' else self.pillars(points)
        maps = []
        for s, count in enumerate(self.z.layers):
            for k in range(count + 1):
                p = f'pts_backbone.blocks.{s}'
                stride = 2 if k == 0 and (s or self.z.kind != 'voxel') else 1
                x = self.conv(f'{p}.{3 * k}', x, f'{p}.{3 * k + 1}', stride, eps=1e-3)
            maps.append(x)
        joined = []
        for n, (level, stride) in enumerate(zip(maps, self.z.strides)):
            p = f'pts_neck.deblocks.{n}'
            if stride == 1:
                joined.append(self.conv(f'{p}.0', level, f'{p}.1', padding=0, eps=1e-3))
            else:
                joined.append(self.deblock(p, level, stride))
        x = torch.cat(joined, 1)
        return self.deform_head(x) if self.z.deform else self.center_head('pts_bbox_head', x)


def decode_of_old(outs, task, z, cell, count):
    """Boxes of version 0.17 of the best cells: x, y, z, width, length, height, yaw, vx, vy.

    Returns:
        tuple: (N, 9) boxes, (N,) scores and (N,) classes, the best first.
    """
    maps = {name.split('.')[1]: value[0].double().numpy() for name, value in outs.items()
            if name.startswith(f'task{task}.')}
    score = 1 / (1 + np.exp(-maps['heatmap']))
    best = np.argsort(-score, axis=None, kind='stable')[:count]
    kind, row, col = np.unravel_index(best, score.shape)
    at = {name: value[:, row, col] for name, value in maps.items()}
    x, y = (cell * (index + offset) - z.reach for index, offset in ((col, at['reg'][0]),
                                                                   (row, at['reg'][1])))
    yaw = np.arctan2(at['rot'][0], at['rot'][1])
    boxes = np.stack([x, y, at['height'][0], *np.exp(at['dim']), yaw, *at['vel']], 1)
    return boxes, score[kind, row, col], kind


def old_to_new(boxes):
    """Boxes of version 0.17 to today's: length before width, ``-yaw - pi / 2``."""
    new = boxes[:, [0, 1, 2, 4, 3, 5, 6, 7, 8]]
    new[:, 6] = -boxes[:, 6] - np.pi / 2
    return new
