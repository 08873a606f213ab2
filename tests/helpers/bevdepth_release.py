"""Megvii's BEVDepth as released: names and shapes of its checkpoints, and its maths.

Written from the definitions, with functions on the release's names; nothing of the package.
"""
import math
from dataclasses import dataclass
from typing import Tuple

import torch
import torch.nn.functional as F
from mmcv.ops import deform_conv2d

CLASSES = (1, 2, 2, 1, 2, 2)
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def bn(name, c):
    return {f'{name}.weight': (c, ), f'{name}.bias': (c, ), f'{name}.running_mean': (c, ),
            f'{name}.running_var': (c, ), f'{name}.num_batches_tracked': ()}


def affine(name, *shape):
    return {f'{name}.weight': shape, f'{name}.bias': (shape[0], )}


def resnet_shapes(prefix, depth, base, into, stages=4):
    """Of a ResNet; a stage has a projection where its input has other channels or size."""
    out = {f'{prefix}.conv1.weight': (base, into, 7, 7), **bn(f'{prefix}.bn1', base)}
    expand, width = (1 if depth == 18 else 4), base
    for s in range(stages):
        c = base << s
        for b in range(BLOCKS[depth][s]):
            p = f'{prefix}.layer{s + 1}.{b}'
            kernels = ((c, width, 3), (c, c, 3)) if expand == 1 else (
                (c, width, 1), (c, c, 3), (4 * c, c, 1))
            for n, (o, i, k) in enumerate(kernels, 1):
                out |= {f'{p}.conv{n}.weight': (o, i, k, k), **bn(f'{p}.bn{n}', o)}
            if b == 0 and (s or expand == 4):
                out |= {f'{p}.downsample.0.weight': (expand * c, width, 1, 1),
                        **bn(f'{p}.downsample.1', expand * c)}
            width = expand * c
    return out


def mobilenet_shapes(prefix):
    out, into = {f'{prefix}.conv1.conv.weight': (32, 3, 3, 3), **bn(f'{prefix}.conv1.bn', 32),
                 f'{prefix}.conv2.conv.weight': (1280, 320, 1, 1),
                 **bn(f'{prefix}.conv2.bn', 1280)}, 32
    for s, (expand, c, count) in enumerate(
            ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3),
             (6, 320, 1)), 1):
        for b in range(count):
            p, hidden = f'{prefix}.layer{s}.{b}', into * expand
            kernels = dict(expand_conv=(hidden, into, 1, 1), depthwise_conv=(hidden, 1, 3, 3),
                           linear_conv=(c, hidden, 1, 1))
            for name, shape in kernels.items():
                if expand > 1 or name != 'expand_conv':
                    out |= {f'{p}.{name}.conv.weight': shape, **bn(f'{p}.{name}.bn', shape[0])}
            into = c
    return out


def head_shapes(prefix, into, width=64):
    out = {f'{prefix}.shared_conv.conv.weight': (width, into, 3, 3),
           **bn(f'{prefix}.shared_conv.bn', width)}
    for t, classes in enumerate(CLASSES):
        for name, c in dict(reg=2, height=1, dim=3, rot=2, vel=2, heatmap=classes).items():
            p = f'{prefix}.task_heads.{t}.{name}'
            out |= {f'{p}.0.conv.weight': (64, width, 3, 3), **bn(f'{p}.0.bn', 64),
                    **affine(f'{p}.1', c, 64, 3, 3)}
    return out


@dataclass(frozen=True)
class Sizes:
    """Widths, which are those of the release by default."""
    backbone: object = 50  # depth of a ResNet, or 'mobilenetv2'
    base: int = 64
    fpn: int = 128
    mid: int = 512
    context: int = 80
    frames: int = 2
    trunk: int = 160
    neck: int = 64
    head: int = 64
    bins: Tuple[float, float, float] = (2.0, 58.0, 0.5)
    size: Tuple[int, int] = (256, 704)
    reach: float = 51.2
    cell: float = 0.8
    refine: bool = False

    @property
    def levels(self):
        if self.backbone == 'mobilenetv2':
            return 24, 32, 96, 320
        return tuple((self.base << s) * (1 if self.backbone == 18 else 4) for s in range(4))

    @property
    def depths(self):
        return torch.arange(*self.bins)


def shapes(z=Sizes()):
    b, h, d, m = 'backbone', 'head', 'backbone.depth_net', z.mid
    count = len(z.depths)
    out = {f'{b}.voxel_size': (3, ), f'{b}.voxel_coord': (3, ), f'{b}.voxel_num': (3, ),
           f'{b}.frustum': (count, z.size[0] // 16, z.size[1] // 16, 4)}
    out |= mobilenet_shapes(f'{b}.img_backbone') if z.backbone == 'mobilenetv2' else (
        resnet_shapes(f'{b}.img_backbone', z.backbone, z.base, 3))
    for n, (c, shape) in enumerate(zip(z.levels, ((z.fpn, 0, 4), (z.fpn, 0, 2), (0, z.fpn, 1),
                                                  (0, z.fpn, 2)))):
        k = shape[2]
        out |= {f'{b}.img_neck.deblocks.{n}.0.weight': (shape[0] or c, shape[1] or c, k, k),
                **bn(f'{b}.img_neck.deblocks.{n}.1', z.fpn)}
    out |= {**affine(f'{d}.reduce_conv.0', m, 4 * z.fpn, 3, 3), **bn(f'{d}.reduce_conv.1', m),
            **affine(f'{d}.context_conv', z.context, m, 1, 1), **bn(f'{d}.bn', 27)}
    for path in ('context', 'depth'):
        out |= {**affine(f'{d}.{path}_mlp.fc1', m, 27), **affine(f'{d}.{path}_mlp.fc2', m, m),
                **affine(f'{d}.{path}_se.conv_reduce', m, m, 1, 1),
                **affine(f'{d}.{path}_se.conv_expand', m, m, 1, 1)}
    for n in range(3):
        for k in (1, 2):
            out |= {f'{d}.depth_conv.{n}.conv{k}.weight': (m, m, 3, 3),
                    **bn(f'{d}.depth_conv.{n}.bn{k}', m)}
    p = f'{d}.depth_conv.3'
    for n, k in ((1, 1), (2, 3), (3, 3), (4, 3)):
        out |= {f'{p}.aspp{n}.atrous_conv.weight': (m, m, k, k), **bn(f'{p}.aspp{n}.bn', m)}
    out |= {f'{p}.global_avg_pool.1.weight': (m, m, 1, 1), **bn(f'{p}.global_avg_pool.2', m),
            f'{p}.conv1.weight': (m, 5 * m, 1, 1), **bn(f'{p}.bn1', m),
            f'{d}.depth_conv.4.weight': (m, m // 4, 3, 3),
            **affine(f'{d}.depth_conv.4.conv_offset', 18, m, 3, 3),
            **affine(f'{d}.depth_conv.5', count, m, 1, 1)}
    if z.refine:
        p, c = f'{b}.depth_aggregation_net', z.context
        for conv, norm in (('reduce_conv.0', 'reduce_conv.1'), ('conv.0', 'conv.1'),
                           ('conv.3', 'conv.4')):
            out |= {f'{p}.{conv}.weight': (c, c, 3, 3), **bn(f'{p}.{norm}', c)}
        out |= affine(f'{p}.out_conv.0', c, c, 3, 3)
    out |= head_shapes(h, 4 * z.neck, z.head)
    out |= resnet_shapes(f'{h}.trunk', 18, z.trunk, z.context * z.frames, 3)
    for n, c in enumerate((z.context * z.frames, z.trunk, 2 * z.trunk, 4 * z.trunk)):
        out |= {f'{h}.neck.deblocks.{n}.0.weight': (c, z.neck, 2**n, 2**n),
                **bn(f'{h}.neck.deblocks.{n}.1', z.neck)}
    return out


def weights(named, constants, seed=0):
    """Deterministic weights under which signals keep their size.

    Args:
        named: Names and shapes.
        constants: Of the view transform, by their names.
        seed: Of the generator.
    """
    generator, out = torch.Generator().manual_seed(seed), {}

    def uniform(shape, low, high):
        return low + (high - low) * torch.rand(shape, generator=generator)

    for name, shape in named.items():
        leaf = name.rsplit('.', 1)[1]
        if name in constants:
            out[name] = constants[name]
        elif leaf == 'num_batches_tracked':
            out[name] = torch.tensor(3)
        elif leaf == 'running_var' or (leaf == 'weight' and len(shape) == 1):
            out[name] = uniform(shape, 0.6, 1.4)
        elif leaf == 'weight':
            out[name] = uniform(shape, -1, 1) * (6 / math.prod(shape[1:]))**0.5
        else:
            out[name] = uniform(shape, -0.2, 0.2)
        if 'conv_offset' in name:
            out[name] = out[name] * 3
    return out


def numbered(named, constants):
    """A number for each entry: large files in no time."""
    out = {name: torch.full(shape, float(n)) for n, (name, shape) in enumerate(named.items())}
    return {**{name: value.long() if name.endswith('num_batches_tracked') else value
               for name, value in out.items()}, **constants}


def constants(z=Sizes()):
    low = torch.tensor([-z.reach, -z.reach, -5.0])
    step = torch.tensor([z.cell, z.cell, 8.0])
    cells = round(2 * z.reach / z.cell)
    return {'backbone.voxel_size': step, 'backbone.voxel_coord': low + step / 2,
            'backbone.voxel_num': torch.tensor([cells, cells, 1]),
            'backbone.frustum': frustum(z)}


def frustum(z):
    count, h, w = len(z.depths), z.size[0] // 16, z.size[1] // 16
    u, v = torch.linspace(0, z.size[1] - 1, w), torch.linspace(0, z.size[0] - 1, h)
    shape = (count, h, w)
    return torch.stack([u.expand(shape), v[:, None].expand(shape),
                        z.depths[:, None, None].expand(shape), torch.ones(shape)], -1)


def release(z=Sizes(), seed=0):
    return weights(shapes(z), constants(z), seed)


# The maths ----------------------------------------------------------------------------------------


class Net:
    """Layers on a state dict."""

    def __init__(self, state):
        self.state = state

    def bn(self, name, x, eps=1e-5):
        s = self.state
        return F.batch_norm(x, s[f'{name}.running_mean'], s[f'{name}.running_var'],
                            s[f'{name}.weight'], s[f'{name}.bias'], eps=eps)

    def conv(self, name, x, norm=None, stride=1, padding=1, relu=True, dilation=1, eps=1e-5):
        x = F.conv2d(x, self.state[f'{name}.weight'], self.state.get(f'{name}.bias'), stride,
                     padding, dilation)
        x = x if norm is None else self.bn(norm, x, eps)
        return x.relu() if relu else x

    def linear(self, name, x):
        return F.linear(x, self.state[f'{name}.weight'], self.state[f'{name}.bias'])

    def block(self, p, x, stride=1, skip=None):
        """A basic block or a bottleneck of a ResNet."""
        if f'{p}.conv3.weight' in self.state:
            y = self.conv(f'{p}.conv1', x, f'{p}.bn1', padding=0)
            y = self.conv(f'{p}.conv2', y, f'{p}.bn2', stride)
            y = self.conv(f'{p}.conv3', y, f'{p}.bn3', padding=0, relu=False)
        else:
            y = self.conv(f'{p}.conv1', x, f'{p}.bn1', stride)
            y = self.conv(f'{p}.conv2', y, f'{p}.bn2', relu=False)
        if skip is not None:
            x = skip(x)
        elif f'{p}.downsample.0.weight' in self.state:
            x = self.conv(f'{p}.downsample.0', x, f'{p}.downsample.1', stride, 0, False)
        return (y + x).relu()

    def resnet(self, p, x, strides, pool):
        x = self.conv(f'{p}.conv1', x, f'{p}.bn1', 2, 3)
        x = F.max_pool2d(x, 3, 2, 1) if pool else x
        maps = []
        for s, stride in enumerate(strides, 1):
            b = 0
            while f'{p}.layer{s}.{b}.conv1.weight' in self.state:
                x = self.block(f'{p}.layer{s}.{b}', x, stride if b == 0 else 1)
                b += 1
            maps.append(x)
        return maps

    def deblock(self, p, x, stride):
        """A level of SECONDFPN; a stride below 1 is that of a plain convolution."""
        weight = self.state[f'{p}.0.weight']
        if stride < 1:
            x = F.conv2d(x, weight, stride=round(1 / stride))
        else:
            x = F.conv_transpose2d(x, weight, stride=stride)
        return self.bn(f'{p}.1', x, 1e-3).relu()

    def center_head(self, p, x):
        shared = self.conv(f'{p}.shared_conv.conv', x, f'{p}.shared_conv.bn')
        outs = {}
        for t in range(len(CLASSES)):
            for name in ('reg', 'height', 'dim', 'rot', 'vel', 'heatmap'):
                b = f'{p}.task_heads.{t}.{name}'
                y = self.conv(f'{b}.0.conv', shared, f'{b}.0.bn')
                outs[f'task{t}.{name}'] = self.conv(f'{b}.1', y, relu=False)
        return outs


class Release(Net):
    """BEVDepth; images (B, n, N, 3, H, W) and matrices (B, n, N, 4, 4) as in the release."""

    def __init__(self, state, sizes):
        super().__init__(state)
        self.z = sizes

    def image_features(self, x):
        levels = self.resnet('backbone.img_backbone', x, (1, 2, 2, 2), True)
        return torch.cat([self.deblock(f'backbone.img_neck.deblocks.{n}', level, stride)
                          for n, (level, stride) in enumerate(zip(levels, (0.25, 0.5, 1, 2)))], 1)

    def depth_net(self, x, sensor2ego, intrin, ida, bda):
        """(B * N, C, h, w) and key frame matrices (B, N, 4, 4), (B, 4, 4) to logits, context."""
        d, views = 'backbone.depth_net', intrin.shape[1]
        scene = bda[:, None].expand(-1, views, -1, -1)
        values = [intrin[..., 0, 0], intrin[..., 1, 1], intrin[..., 0, 2], intrin[..., 1, 2],
                  *(ida[..., i, j] for i in (0, 1) for j in (0, 1, 3)),
                  scene[..., 0, 0], scene[..., 0, 1], scene[..., 1, 0], scene[..., 1, 1],
                  scene[..., 2, 2], *(sensor2ego[..., i, j] for i in range(3) for j in range(4))]
        vector = self.bn(f'{d}.bn', torch.stack(values, -1).flatten(0, 1))
        x = self.conv(f'{d}.reduce_conv.0', x, f'{d}.reduce_conv.1')

        def gated(path):
            hidden = self.linear(f'{d}.{path}_mlp.fc1', vector).relu()
            gate = self.linear(f'{d}.{path}_mlp.fc2', hidden)[..., None, None]
            gate = self.conv(f'{d}.{path}_se.conv_reduce', gate, padding=0)
            gate = self.conv(f'{d}.{path}_se.conv_expand', gate, padding=0, relu=False)
            return x * gate.sigmoid()

        context = self.conv(f'{d}.context_conv', gated('context'), padding=0, relu=False)
        depth = gated('depth')
        for n in range(3):
            depth = self.block(f'{d}.depth_conv.{n}', depth)
        depth = self.aspp(f'{d}.depth_conv.3', depth)
        p = f'{d}.depth_conv.4'
        offset = self.conv(f'{p}.conv_offset', depth, relu=False)
        depth = deform_conv2d(depth, offset, self.state[f'{p}.weight'], 1, 1, 1, 4, 1)
        return self.conv(f'{d}.depth_conv.5', depth, padding=0, relu=False), context

    def aspp(self, p, x):
        branches = [self.conv(f'{p}.aspp1.atrous_conv', x, f'{p}.aspp1.bn', padding=0)]
        for n, dilation in ((2, 6), (3, 12), (4, 18)):
            branches.append(self.conv(f'{p}.aspp{n}.atrous_conv', x, f'{p}.aspp{n}.bn',
                                      padding=dilation, dilation=dilation))
        pooled = self.conv(f'{p}.global_avg_pool.1', F.adaptive_avg_pool2d(x, 1),
                           f'{p}.global_avg_pool.2', padding=0)
        branches.append(F.interpolate(pooled, x.shape[-2:], mode='bilinear', align_corners=True))
        return self.conv(f'{p}.conv1', torch.cat(branches, 1), f'{p}.bn1', padding=0)

    def refine(self, volume):
        """(n, C, D, h, w)."""
        p, n = 'backbone.depth_aggregation_net', len(volume)
        x = volume.permute(0, 3, 1, 4, 2).flatten(0, 1)
        x = self.conv(f'{p}.reduce_conv.0', x, f'{p}.reduce_conv.1')
        y = self.conv(f'{p}.conv.0', x, f'{p}.conv.1')
        x = self.conv(f'{p}.conv.3', y, f'{p}.conv.4') + x
        x = self.conv(f'{p}.out_conv.0', x, relu=False)
        return x.unflatten(0, (n, -1)).permute(0, 2, 4, 1, 3)

    def bev(self, logits, context, sensor2ego, intrin, ida, bda):
        """Of one frame: (B, C, Y, X)."""
        batch, views = intrin.shape[:2]
        lifted = context[:, :, None] * logits.softmax(1)[:, None]
        lifted = self.refine(lifted) if self.z.refine else lifted
        points = frustum(self.z)[None, None, ..., None]
        points = torch.inverse(ida)[:, :, None, None, None] @ points
        points = torch.cat([points[..., :2, :] * points[..., 2:3, :], points[..., 2:, :]], -2)
        points = (sensor2ego @ torch.inverse(intrin))[:, :, None, None, None] @ points
        points = (bda[:, None, None, None, None] @ points)[..., :3, 0]
        s = self.state
        low = s['backbone.voxel_coord'] - s['backbone.voxel_size'] / 2
        index = ((points - low) / s['backbone.voxel_size']).int()  # towards zero
        inside = ((index >= 0) & (index < s['backbone.voxel_num'])).all(-1)
        lifted = lifted.unflatten(0, (batch, views)).permute(0, 1, 3, 4, 5, 2)
        cells = int(s['backbone.voxel_num'][0])
        maps = []
        for n in range(batch):
            x, y = index[n][inside[n]][:, :2].long().T
            maps.append(torch.zeros(cells, cells, lifted.shape[-1]).index_put(
                (y, x), lifted[n][inside[n]], accumulate=True).permute(2, 0, 1))
        return torch.stack(maps)

    def depth_logits(self, images, mats):
        """Of the key frame, (B * N, D, h, w)."""
        first = [mats[name][:, 0] for name in ('sensor2ego', 'intrin', 'ida')]
        return self.depth_net(self.image_features(images[:, 0].flatten(0, 1)), *first,
                              mats['bda'])[0]

    def __call__(self, images, mats):
        key = [mats[name][:, 0] for name in ('sensor2ego', 'intrin', 'ida')]
        maps = []
        for t in range(images.shape[1]):
            features = self.image_features(images[:, t].flatten(0, 1))
            logits, context = self.depth_net(features, *key, mats['bda'])
            own = [mats[name][:, t] for name in ('sensor2ego', 'intrin', 'ida')]
            maps.append(self.bev(logits, context, *own, mats['bda']))
        x = torch.cat(maps, 1)
        levels = [x, *self.resnet('head.trunk', x, (1, 2, 2), False)]
        x = torch.cat([self.deblock(f'head.neck.deblocks.{n}', level, 2**n)
                       for n, level in enumerate(levels)], 1)
        return self.center_head('head', x)


def depth_loss(logits, points, mats, z, raw_size):
    """Of the key frame; points (P, 3) in the frame before the BEV augmentation, one cloud each.

    Points are written into a map of the image's size. The release keeps the last of a pixel, here
    each pixel has one point at most.
    """
    stride, count = 16, len(z.depths)
    batch, views = mats['intrin'].shape[0], mats['intrin'].shape[2]
    maps = torch.zeros(batch, views, *z.size)
    for b in range(batch):
        for n in range(views):
            local = torch.inverse(mats['sensor2ego'][b, 0, n])
            xyz = points[b] @ local[:3, :3].T + local[:3, 3]
            pixel = xyz @ mats['intrin'][b, 0, n, :3, :3].T
            uv, depth = pixel[:, :2] / xyz[:, 2:], xyz[:, 2]
            seen = (depth > 0) & (uv > 1).all(1) & (
                uv < torch.tensor([raw_size[1] - 1, raw_size[0] - 1])).all(1)
            uv, depth = uv[seen], depth[seen]
            ida = mats['ida'][b, 0, n]
            col, row = (uv @ ida[:2, :2].T + ida[:2, 3]).int().T.long()  # towards zero
            inside = (col >= 0) & (col < z.size[1]) & (row >= 0) & (row < z.size[0])
            maps[b, n, row[inside], col[inside]] = depth[inside]
    blocks = maps.view(batch * views, z.size[0] // stride, stride, z.size[1] // stride, stride)
    blocks = blocks.masked_fill(blocks == 0, 1e5).amin((2, 4))
    low, _, step = z.bins
    bins = (blocks - (low - step)) / step
    bins = torch.where((bins < count + 1) & (bins >= 0), bins, torch.zeros(())).long()
    target = F.one_hot(bins, count + 1)[..., 1:].flatten(0, 2).float()
    foreground = target.amax(1) > 0
    probability = logits.softmax(1).permute(0, 2, 3, 1).flatten(0, 2)
    loss = F.binary_cross_entropy(probability[foreground], target[foreground], reduction='sum')
    return 3.0 * loss / max(1, int(foreground.sum()))
