"""BEVFusion's map segmentation as released: names and shapes of the checkpoints, and its maths.

Written from the definitions, with functions on the release's names; nothing of the package.
"""
import math

import torch
import torch.nn.functional as F

CLASSES = 6


def _bn(name, c):
    return {f'{name}.weight': (c, ), f'{name}.bias': (c, ), f'{name}.running_mean': (c, ),
            f'{name}.running_var': (c, ), f'{name}.num_batches_tracked': ()}


def _linear(name, out, into):
    return {f'{name}.weight': (out, into), f'{name}.bias': (out, )}


def _norm(name, c):
    return {f'{name}.weight': (c, ), f'{name}.bias': (c, )}


def camera_shapes():
    p, out = 'encoders.camera.backbone', {}
    out |= {f'{p}.patch_embed.projection.weight': (96, 3, 4, 4),
            f'{p}.patch_embed.projection.bias': (96, ), **_norm(f'{p}.patch_embed.norm', 96)}
    for i, (depth, heads) in enumerate(((2, 3), (2, 6), (6, 12), (2, 24))):
        c = 96 << i
        for j in range(depth):
            b = f'{p}.stages.{i}.blocks.{j}'
            out |= {**_norm(f'{b}.norm1', c), **_norm(f'{b}.norm2', c),
                    f'{b}.attn.w_msa.relative_position_bias_table': (169, heads),
                    f'{b}.attn.w_msa.relative_position_index': (49, 49),
                    **_linear(f'{b}.attn.w_msa.qkv', 3 * c, c),
                    **_linear(f'{b}.attn.w_msa.proj', c, c),
                    **_linear(f'{b}.ffn.layers.0.0', 4 * c, c),
                    **_linear(f'{b}.ffn.layers.1', c, 4 * c)}
        if i < 3:
            out |= {**_norm(f'{p}.stages.{i}.downsample.norm', 4 * c),
                    f'{p}.stages.{i}.downsample.reduction.weight': (2 * c, 4 * c)}
        if i:
            out |= _norm(f'{p}.norm{i}', c)
    n = 'encoders.camera.neck'
    for i, into in enumerate((448, 1152)):
        out |= {f'{n}.lateral_convs.{i}.conv.weight': (256, into, 1, 1),
                **_bn(f'{n}.lateral_convs.{i}.bn', 256),
                f'{n}.fpn_convs.{i}.conv.weight': (256, 256, 3, 3),
                **_bn(f'{n}.fpn_convs.{i}.bn', 256)}
    v = 'encoders.camera.vtransform'
    out |= {f'{v}.dx': (3, ), f'{v}.bx': (3, ), f'{v}.nx': (3, ), f'{v}.frustum': (118, 32, 88, 3),
            f'{v}.depthnet.weight': (198, 256, 1, 1), f'{v}.depthnet.bias': (198, )}
    for k in (0, 3, 6):
        out |= {f'{v}.downsample.{k}.weight': (80, 80, 3, 3), **_bn(f'{v}.downsample.{k + 1}', 80)}
    return out


def lidar_shapes():
    p, out = 'encoders.lidar.backbone', {}
    out |= {f'{p}.conv_input.0.weight': (3, 3, 3, 5, 16), **_bn(f'{p}.conv_input.1', 16)}
    for i, c in enumerate((16, 32, 64, 128), 1):
        stage = f'{p}.encoder_layers.encoder_layer{i}'
        for j in range(2):
            for k in (1, 2):
                out |= {f'{stage}.{j}.conv{k}.weight': (3, 3, 3, c, c),
                        **_bn(f'{stage}.{j}.bn{k}', c)}
        if i < 4:
            out |= {f'{stage}.2.0.weight': (3, 3, 3, c, 2 * c), **_bn(f'{stage}.2.1', 2 * c)}
    return out | {f'{p}.conv_out.0.weight': (1, 1, 3, 128, 128), **_bn(f'{p}.conv_out.1', 128)}


def resnet_shapes():
    out, into = {}, 80
    for s, c in enumerate((160, 320, 640)):
        for b in range(2):
            p = f'decoder.backbone.{s}.{b}'
            out |= {f'{p}.conv1.weight': (c, into if b == 0 else c, 3, 3), **_bn(f'{p}.bn1', c),
                    f'{p}.conv2.weight': (c, c, 3, 3), **_bn(f'{p}.bn2', c)}
            if b == 0:
                out |= {f'{p}.downsample.0.weight': (c, into, 1, 1), **_bn(f'{p}.downsample.1', c)}
        into = c
    n = 'decoder.neck'
    return out | {f'{n}.fuse.0.weight': (256, 800, 1, 1), **_bn(f'{n}.fuse.1', 256),
                  f'{n}.fuse.3.weight': (256, 256, 3, 3), **_bn(f'{n}.fuse.4', 256),
                  f'{n}.upsample.1.weight': (256, 256, 3, 3), **_bn(f'{n}.upsample.2', 256)}


def second_shapes():
    out = {}
    for i, (into, c) in enumerate(((256, 128), (128, 256))):
        for k in range(0, 18, 3):
            p = f'decoder.backbone.blocks.{i}'
            out |= {f'{p}.{k}.weight': (c, into if k == 0 else c, 3, 3), **_bn(f'{p}.{k + 1}', c)}
    n = 'decoder.neck.deblocks'
    return out | {f'{n}.0.0.weight': (256, 128, 1, 1), **_bn(f'{n}.0.1', 256),
                  f'{n}.1.0.weight': (256, 256, 2, 2), **_bn(f'{n}.1.1', 256)}


def head_shapes(c):
    p, out = 'heads.map.classifier', {}
    for k in (0, 3):
        out |= {f'{p}.{k}.weight': (c, c, 3, 3), **_bn(f'{p}.{k + 1}', c)}
    return out | {f'{p}.6.weight': (CLASSES, c, 1, 1), f'{p}.6.bias': (CLASSES, )}


def shapes(model):
    if model == 'camera':
        return camera_shapes() | resnet_shapes() | head_shapes(256)
    lidar = lidar_shapes() | second_shapes() | head_shapes(512)
    if model == 'lidar':
        return lidar
    return camera_shapes() | lidar | {'fuser.0.weight': (256, 336, 3, 3), **_bn('fuser.1', 256)}


def release(model, seed=0):
    """Deterministic weights under which signals keep their size."""
    generator, out = torch.Generator().manual_seed(seed), {}

    def uniform(shape, low, high):
        return low + (high - low) * torch.rand(shape, generator=generator)

    for name, shape in shapes(model).items():
        leaf = name.rsplit('.', 1)[1]
        if leaf in ('num_batches_tracked', 'nx', 'relative_position_index'):
            out[name] = torch.full(shape, 3)
        elif leaf == 'running_var' or (leaf == 'weight' and len(shape) == 1):
            out[name] = uniform(shape, 0.6, 1.4)
        elif leaf == 'weight':
            fan_in = math.prod(shape[:-1] if len(shape) == 5 else shape[1:])
            out[name] = uniform(shape, -1, 1) * (6 / fan_in)**0.5
        else:
            out[name] = uniform(shape, -0.2, 0.2)
    return out


# The maths ----------------------------------------------------------------------------------------


class Release:
    """The networks on small inputs.

    Args:
        state: of :func:`release`.
        reach: half the side of the features' square, metres; 51.2 in the release.
        scope: half the side of the prediction's; 50 in the release.
    """

    def __init__(self, state, reach, scope):
        self.state, self.reach, self.scope = state, reach, scope

    def bn(self, name, x, eps=1e-5):
        s = self.state
        return F.batch_norm(x, s[f'{name}.running_mean'], s[f'{name}.running_var'],
                            s[f'{name}.weight'], s[f'{name}.bias'], eps=eps)

    def conv(self, name, x, norm=None, stride=1, padding=1, relu=True, eps=1e-5):
        x = F.conv2d(x, self.state[f'{name}.weight'], self.state.get(f'{name}.bias'), stride,
                     padding)
        if norm:
            x = self.bn(norm, x, eps)
        return x.relu() if relu else x

    # cameras
    def neck(self, levels):
        p, x = 'encoders.camera.neck', levels[2]
        for i in (1, 0):
            up = F.interpolate(x, levels[i].shape[-2:], mode='bilinear', align_corners=False)
            x = torch.cat([levels[i], up], 1)
            x = self.conv(f'{p}.lateral_convs.{i}.conv', x, f'{p}.lateral_convs.{i}.bn', padding=0)
            x = self.conv(f'{p}.fpn_convs.{i}.conv', x, f'{p}.fpn_convs.{i}.bn')
        return x

    def lift(self, features, size, intrinsics, camera2lidar, image_aug, lidar_aug):
        """(N, 256, h, w) features of one sample to (1, 80, X, Y)."""
        p = 'encoders.camera.vtransform'
        out = self.conv(f'{p}.depthnet', features, padding=0, relu=False)
        depth, context = out[:, :118].softmax(1), out[:, 118:]
        n, _, h, w = out.shape
        d = torch.arange(1, 60, 0.5)
        u, v = torch.linspace(0, size[1] - 1, w), torch.linspace(0, size[0] - 1, h)
        points = torch.stack([u.expand(118, h, w), v[:, None].expand(118, h, w),
                              d[:, None, None].expand(118, h, w)], -1)
        points = points - image_aug[:, None, None, None, :3, 3]
        points = points @ torch.inverse(image_aug[:, :3, :3]).transpose(1, 2)[:, None, None]
        points = torch.cat([points[..., :2] * points[..., 2:], points[..., 2:]], -1)
        turn = camera2lidar[:, :3, :3] @ torch.inverse(intrinsics[:, :3, :3])
        points = points @ turn.transpose(1, 2)[:, None, None]
        points = points + camera2lidar[:, None, None, None, :3, 3]
        points = points @ lidar_aug[:3, :3].T + lidar_aug[:3, 3]
        low, step = torch.tensor([-self.reach, -self.reach, -10]), torch.tensor([0.4, 0.4, 20])
        cells = round(2 * self.reach / 0.4)
        index = ((points - low) / step).long()  # towards zero
        lifted = (depth[:, :, None] * context[:, None]).permute(0, 1, 3, 4, 2)
        inside = ((index >= 0) & (index < torch.tensor([cells, cells, 1]))).all(-1)
        bev = torch.zeros(cells, cells, 80).index_put(
            tuple(index[inside][:, :2].T), lifted[inside], accumulate=True)
        bev = bev.permute(2, 0, 1)[None]
        for k, stride in ((0, 1), (3, 2), (6, 1)):
            bev = self.conv(f'{p}.downsample.{k}', bev, f'{p}.downsample.{k + 1}', stride)
        return bev

    # LiDAR, by dense convolution and a mask of the active sites
    def sparse(self, name, norm, x, active, stride=1, padding=1, submanifold=False):
        kernel = self.state[f'{name}.weight'].permute(4, 3, 0, 1, 2)
        if not submanifold:
            ones = torch.ones(1, 1, *kernel.shape[2:])
            active = (F.conv3d(active, ones, stride=stride, padding=padding) > 0).float()
        return self.bn(norm, F.conv3d(x, kernel, stride=stride, padding=padding), 1e-3), active

    def voxels(self, points):
        """(P, 5) to (1, 256, X, Y)."""
        size, low = torch.tensor([0.1, 0.1, 0.2]), torch.tensor([-self.reach, -self.reach, -5.0])
        shape = [round(2 * self.reach / 0.1)] * 2 + [40]
        kept = {}
        for point in points:
            cell = tuple(((point[:3] - low) / size).floor().long().tolist())
            if all(0 <= c < n for c, n in zip(cell, shape)):
                kept.setdefault(cell, []).append(point)
        x = torch.zeros(1, 5, shape[0], shape[1], 41)
        active = torch.zeros(1, 1, shape[0], shape[1], 41)
        for (a, b, c), group in kept.items():
            x[0, :, a, b, c], active[..., a, b, c] = torch.stack(group[:10]).mean(0), 1
        p = 'encoders.lidar.backbone'
        x, _ = self.sparse(f'{p}.conv_input.0', f'{p}.conv_input.1', x, active, submanifold=True)
        x = x.relu() * active
        for i in range(1, 5):
            stage = f'{p}.encoder_layers.encoder_layer{i}'
            for j in range(2):
                b = f'{stage}.{j}'
                y, _ = self.sparse(f'{b}.conv1', f'{b}.bn1', x, active, submanifold=True)
                y, _ = self.sparse(f'{b}.conv2', f'{b}.bn2', y.relu() * active, active,
                                   submanifold=True)
                x = (x + y).relu() * active
            if i < 4:
                padding = (1, 1, 0) if i == 3 else 1
                x, active = self.sparse(f'{stage}.2.0', f'{stage}.2.1', x, active, 2, padding)
                x = x.relu() * active
        x, active = self.sparse(f'{p}.conv_out.0', f'{p}.conv_out.1', x, active, (1, 1, 2), 0)
        x = x.relu() * active
        return x.permute(0, 1, 4, 2, 3).flatten(1, 2)

    # the BEV map
    def resnet(self, x):
        maps = []
        for s, stride in enumerate((2, 2, 1)):
            for b in range(2):
                p = f'decoder.backbone.{s}.{b}'
                y = self.conv(f'{p}.conv1', x, f'{p}.bn1', stride if b == 0 else 1)
                y = self.conv(f'{p}.conv2', y, f'{p}.bn2', relu=False)
                short = self.conv(f'{p}.downsample.0', x, f'{p}.downsample.1', stride, 0,
                                  False) if b == 0 else x
                x = (y + short).relu()
            maps.append(x)
        n, size = 'decoder.neck', maps[0].shape[-2:]
        up = F.interpolate(maps[2], size, mode='bilinear', align_corners=True)
        x = self.conv(f'{n}.fuse.0', torch.cat([up, maps[0]], 1), f'{n}.fuse.1', padding=0)
        x = self.conv(f'{n}.fuse.3', x, f'{n}.fuse.4')
        x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
        return self.conv(f'{n}.upsample.1', x, f'{n}.upsample.2')

    def second(self, x):
        maps = []
        for i, stride in enumerate((1, 2)):
            p = f'decoder.backbone.blocks.{i}'
            for k in range(0, 18, 3):
                x = self.conv(f'{p}.{k}', x, f'{p}.{k + 1}', stride if k == 0 else 1, eps=1e-3)
            maps.append(x)
        n = 'decoder.neck.deblocks'
        first = self.conv(f'{n}.0.0', maps[0], f'{n}.0.1', padding=0, eps=1e-3)
        second = F.conv_transpose2d(maps[1], self.state[f'{n}.1.0.weight'], stride=2)
        return torch.cat([first, self.bn(f'{n}.1.1', second, 1e-3).relu()], 1)

    def head(self, x):
        centres = torch.arange(-self.scope + 0.25, self.scope, 0.5) / self.reach
        where = torch.stack(torch.meshgrid(centres, centres, indexing='ij')[::-1], -1)
        x = F.grid_sample(x, where.expand(len(x), -1, -1, -1), align_corners=False)
        p = 'heads.map.classifier'
        for k in (0, 3):
            x = self.conv(f'{p}.{k}', x, f'{p}.{k + 1}')
        return self.conv(f'{p}.6', x, padding=0, relu=False)

    def fuse(self, camera, lidar):
        return self.conv('fuser.0', torch.cat([camera, lidar], 1), 'fuser.1')
