"""BEVDet's bevdepth4d-r50 as released: names and shapes of its checkpoints, and its maths.

Written from the definitions, with functions on the release's names; nothing of the package.
"""
from dataclasses import dataclass
from typing import Tuple

import torch
import torch.nn.functional as F
from mmcv.ops import modulated_deform_conv2d

from .bevdepth_release import Net, affine, bn, head_shapes, numbered, resnet_shapes, weights

V, N, E = 'img_view_transformer', 'img_bev_encoder_neck', 'img_bev_encoder_backbone'


@dataclass(frozen=True)
class Sizes:
    """Widths, which are those of the release by default."""
    depth: int = 50
    base: int = 64
    neck: int = 512
    channels: int = 64
    mid: int = 256
    stages: Tuple[int, ...] = (128, 256, 512)
    joined: int = 512
    out: int = 256
    head: int = 64
    bins: Tuple[float, float, float] = (1.0, 60.0, 1.0)
    size: Tuple[int, int] = (256, 704)
    reach: float = 51.2
    norm: bool = False  # extra_norm_act

    @property
    def levels(self):
        expand = 1 if self.depth == 18 else 4
        return tuple((self.base << s) * expand for s in (2, 3))

    @property
    def depths(self):
        return torch.arange(*self.bins)


def stage_shapes(p, into, c, blocks):
    out = {}
    for b in range(blocks):
        for k in (1, 2):
            out |= {f'{p}.{b}.conv{k}.weight': (c, into if b + k == 1 else c, 3, 3),
                    **bn(f'{p}.{b}.bn{k}', c)}
    return out | affine(f'{p}.0.downsample', c, into, 3, 3)


def shapes(z=Sizes()):
    count, m = len(z.depths), z.mid
    out = {f'{V}.dx': (3, ), f'{V}.bx': (3, ), f'{V}.nx': (3, ),
           f'{V}.frustum': (count, z.size[0] // 16, z.size[1] // 16, 3),
           **resnet_shapes('img_backbone', z.depth, z.base, 3)}
    for n, c in enumerate(z.levels):
        out |= affine(f'img_neck.lateral_convs.{n}.conv', z.neck, c, 1, 1)
    out |= {**affine('img_neck.fpn_convs.0.conv', z.neck, z.neck, 3, 3),
            **affine(f'{V}.featnet', z.channels, z.neck, 1, 1),
            **affine(f'{V}.depthnet', count, m, 1, 1),
            **affine(f'{V}.se.input_conv', m, z.neck, 1, 1),
            **bn(f'{V}.se.fc.0', 33), **affine(f'{V}.se.fc.1', m, 33),
            **stage_shapes(f'{V}.extra_depthnet.layers.0', m, m, 3),
            **affine(f'{V}.dcn.0', m, m, 3, 3), **affine(f'{V}.dcn.0.conv_offset', 27, m, 3, 3),
            **bn(f'{V}.dcn.1', m),
            **stage_shapes('pre_process_net.layers.0', z.channels, z.channels, 2)}
    into = 2 * z.channels
    for n, c in enumerate(z.stages):
        out |= stage_shapes(f'{E}.layers.{n}', into, c, 2)
        into = c
    j = z.joined
    out |= {f'{N}.conv.0.weight': (j, z.stages[0] + z.stages[-1], 3, 3), **bn(f'{N}.conv.1', j),
            f'{N}.conv.3.weight': (j, j, 3, 3), **bn(f'{N}.conv.4', j),
            f'{N}.up2.1.weight': (z.out, j, 3, 3), **bn(f'{N}.up2.2', z.out),
            **affine(f'{N}.up2.4', z.out, z.out, 1, 1)}
    if z.norm:
        out |= bn(f'{N}.up2.5', z.out)
    return out | head_shapes('pts_bbox_head', z.out, z.head)


def adapter_shapes():
    """Of DualDistill, of which nothing is read here."""
    out = {f'spatial_wise_adaptations.{n}.{leaf}': shape for n in range(3)
           for leaf, shape in (('weight', (1, 1, 3, 3)), ('bias', (1, )))}
    for n, (c, target) in enumerate(((256, 128), (512, 256))):
        p, q = (f'channel_wise_adaptations.{n}.{k}' for k in (0, 2))
        out |= {f'{p}.pos_embed': (1, c, 32 >> n, 32 >> n), f'{p}.query.weight': (1024 >> 2 * n, c),
                **affine(f'{p}.pos_attention.q', c, c),
                f'{q}.projector.parametrizations.weight.original': (target, c),
                f'{q}.projector.parametrizations.weight.0.base': (c, c),
                f'{q}.weight': (target, ), f'{q}.bias': (target, )}
    return out | affine('channel_wise_adaptations.2', 384, 256, 1, 1)


def constants(z=Sizes()):
    step = torch.tensor([0.8, 0.8, 20.0])
    cells = round(2 * z.reach / 0.8)
    return {f'{V}.dx': step, f'{V}.bx': torch.tensor([-z.reach, -z.reach, -10.0]) + step / 2,
            f'{V}.nx': torch.tensor([cells, cells, 1]), f'{V}.frustum': frustum(z)}


def frustum(z):
    shape = len(z.depths), z.size[0] // 16, z.size[1] // 16
    u = torch.linspace(0, z.size[1] - 1, shape[2])
    v = torch.linspace(0, z.size[0] - 1, shape[1])
    return torch.stack([u.expand(shape), v[:, None].expand(shape),
                        z.depths[:, None, None].expand(shape)], -1)


def release(z=Sizes(), seed=0):
    return weights(shapes(z), constants(z), seed)


def file(z=Sizes()):
    return numbered(shapes(z), constants(z))


# The maths ----------------------------------------------------------------------------------------


class Release(Net):
    """BEVDepth4D of the current and one adjacent frame.

    Images (B, 2 N, 3, H, W) with the times of a camera one after another; ``rots`` (B, 2 N, 3, 3),
    ``trans`` (B, 2 N, 3), ``intrins``, ``post_rots`` and ``post_trans`` with all cameras of the
    current frame before those of the adjacent one.
    """

    def __init__(self, state, sizes):
        super().__init__(state)
        self.z = sizes

    def stage(self, p, x, blocks, stride=1):
        for b in range(blocks):
            first = dict(stride=stride, skip=lambda x, p=p: self.conv(
                f'{p}.0.downsample', x, stride=stride, relu=False)) if b == 0 else {}
            x = self.block(f'{p}.{b}', x, **first)
        return x

    def image_features(self, x):
        low, high = self.resnet('img_backbone', x, (1, 2, 2, 2), True)[2:]
        low, high = (self.conv(f'img_neck.lateral_convs.{n}.conv', level, padding=0, relu=False)
                     for n, level in enumerate((low, high)))
        low = low + F.interpolate(high, low.shape[-2:], mode='nearest')
        return self.conv('img_neck.fpn_convs.0.conv', low, relu=False)

    def depth_logits(self, x, rots, trans, intrins, post_rots, post_trans):
        vector = torch.cat([intrins.flatten(2), post_rots.flatten(2), post_trans, rots.flatten(2),
                            trans], -1).flatten(0, 1)
        gate = self.linear(f'{V}.se.fc.1', self.bn(f'{V}.se.fc.0', vector)).sigmoid()
        x = self.conv(f'{V}.se.input_conv', x, padding=0, relu=False) * gate[..., None, None]
        x = self.stage(f'{V}.extra_depthnet.layers.0', x, 3)
        offset = self.conv(f'{V}.dcn.0.conv_offset', x, relu=False)
        rows, cols, mask = offset.chunk(3, 1)
        x = modulated_deform_conv2d(
            x, torch.cat([rows, cols], 1), mask.sigmoid(), self.state[f'{V}.dcn.0.weight'],
            self.state[f'{V}.dcn.0.bias'], 1, 1, 1, 1, 1)
        return self.conv(f'{V}.depthnet', self.bn(f'{V}.dcn.1', x), padding=0, relu=False)

    def bev(self, logits, context, rots, trans, intrins, post_rots, post_trans):
        batch, views = trans.shape[:2]
        points = frustum(self.z) - post_trans[:, :, None, None, None]
        points = torch.inverse(post_rots)[:, :, None, None, None] @ points[..., None]
        points = torch.cat([points[..., :2, :] * points[..., 2:, :], points[..., 2:, :]], -2)
        turn = rots @ torch.inverse(intrins)
        points = (turn[:, :, None, None, None] @ points)[..., 0] + trans[:, :, None, None, None]
        s = self.state
        index = ((points - (s[f'{V}.bx'] - s[f'{V}.dx'] / 2)) / s[f'{V}.dx']).long()
        inside = ((index >= 0) & (index < s[f'{V}.nx'])).all(-1)
        lifted = (context[:, :, None] * logits.softmax(1)[:, None]).unflatten(0, (batch, views))
        lifted = lifted.permute(0, 1, 3, 4, 5, 2)
        cells = int(s[f'{V}.nx'][0])
        maps = []
        for n in range(batch):
            x, y = index[n][inside[n]][:, :2].T
            maps.append(torch.zeros(cells, cells, lifted.shape[-1]).index_put(
                (y, x), lifted[n][inside[n]], accumulate=True).permute(2, 0, 1))
        return torch.stack(maps)

    def shift(self, bev, rots, trans, past_rots, past_trans):
        """The adjacent map in the current frame; extrinsics of the first camera of both."""
        def four(rot, tran):
            out = torch.eye(4).repeat(len(rot), 1, 1)
            out[:, :3, :3], out[:, :3, 3] = rot[:, 0], tran[:, 0]
            return out
        moved = four(rots, trans) @ torch.inverse(four(past_rots, past_trans))
        keep = torch.tensor([0, 1, 3])
        moved = moved[:, keep][:, :, keep]
        h, w = bev.shape[-2:]
        low = -self.z.reach
        to_metres = torch.tensor([[0.8, 0, low], [0, 0.8, low], [0, 0, 1]])
        # The release's motion takes places of the current frame to those of the adjacent one.
        pixels = torch.inverse(to_metres) @ moved @ to_metres
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
        grid = torch.stack([xs, ys, torch.ones_like(xs)], -1).float()
        grid = (pixels[:, None, None] @ grid[..., None])[..., :2, 0]
        grid = grid / torch.tensor([w - 1.0, h - 1.0]) * 2 - 1
        return F.grid_sample(bev, grid, mode='bilinear', align_corners=True)

    def __call__(self, images, mats):
        views = images.shape[1] // 2
        images = images.unflatten(1, (views, 2))
        now = [mats[name][:, :views] for name in ('rots', 'trans', 'intrins', 'post_rots',
                                                  'post_trans')]
        maps = []
        for t in range(2):
            features = self.image_features(images[:, :, t].flatten(0, 1))
            logits = self.depth_logits(features, *now)
            context = self.conv(f'{V}.featnet', features, padding=0, relu=False)
            maps.append(self.stage('pre_process_net.layers.0', self.bev(logits, context, *now), 2))
        maps[1] = self.shift(maps[1], *now[:2], mats['rots'][:, views:], mats['trans'][:, views:])
        x, levels = torch.cat(maps, 1), []
        for n in range(len(self.z.stages)):
            x = self.stage(f'{E}.layers.{n}', x, 2, 2)
            levels.append(x)
        deep = F.interpolate(levels[-1], scale_factor=4, mode='bilinear', align_corners=True)
        x = self.conv(f'{N}.conv.0', torch.cat([levels[0], deep], 1), f'{N}.conv.1')
        x = self.conv(f'{N}.conv.3', x, f'{N}.conv.4')
        x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
        x = self.conv(f'{N}.up2.1', x, f'{N}.up2.2')
        x = self.conv(f'{N}.up2.4', x, padding=0, relu=False)
        x = self.bn(f'{N}.up2.5', x).relu() if self.z.norm else x
        return self.center_head('pts_bbox_head', x)


def depth_loss(logits, points, lidar2img, post_rots, post_trans, z):
    """Of the current frame's cameras (B, N); points before the BEV augmentation."""
    low, high, step = z.bins
    h, w = z.size[0] // 16, z.size[1] // 16
    batch, views = lidar2img.shape[:2]
    target = torch.zeros(batch, views, len(z.depths), h, w)
    valid = torch.zeros(batch, views, h, w)
    for b in range(batch):
        for n in range(views):
            image = points[b] @ lidar2img[b, n, :3, :3].T + lidar2img[b, n, :3, 3]
            position = torch.cat([image[:, :2] / image[:, 2:], image[:, 2:]], 1)
            position = position @ post_rots[b, n].T + post_trans[b, n]
            cell, depth = (position[:, :2] / 16).round(), position[:, 2]
            kept = (cell[:, 0] >= 0) & (cell[:, 0] < w) & (cell[:, 1] >= 0) & (cell[:, 1] < h) & (
                depth >= low) & (depth < high)
            for (col, row), d in sorted(zip(cell[kept].long().tolist(), depth[kept].tolist()),
                                        key=lambda pair: -pair[1]):  # the nearest comes last
                target[b, n, :, row, col] = 0
                target[b, n, int((d - low) // step), row, col] = valid[b, n, row, col] = 1
    loss = F.binary_cross_entropy(logits.sigmoid(), target, reduction='none')
    return 100 * (loss * valid[:, :, None]).mean()
