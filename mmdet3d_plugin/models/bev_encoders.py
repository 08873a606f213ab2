"""Networks on the BEV map."""
from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, ResNet
from mmdet.models.layers import ResLayer
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, constant_init, kaiming_init
from torch import Tensor, nn

from ..errors import build_from
from .flips import Flips


@MODELS.register_module()
class BEVUNet(BaseModule):
    """ResNet-18-style U-Net that keeps the resolution of its input.

    7x7 stem of stride 2, three stages of two basic blocks at strides 2, 4 and 8, then three times
    bilinear upsampling, 1x1 convolution, instance norm and addition of the skip.

    Args:
        in_channels (int): C of the input and of the final map.
        channels (tuple): Channels of the three stages.
        decode (bool): False leaves the decoder out; the last map is then the deepest. For an
            assistant that is compared there, whose decoder would have no loss.
    """

    def __init__(self, in_channels: int = 128, channels: Tuple[int, int, int] = (64, 128, 256),
                 decode: bool = True, init_cfg=None):
        super().__init__(init_cfg)
        self.decode = decode
        first, second, third = channels
        norm = dict(type='BN')
        self.stem = ConvModule(in_channels, first, 7, stride=2, padding=3, bias=False,
                               norm_cfg=norm)
        self.layer1 = ResLayer(BasicBlock, first, first, 2, norm_cfg=norm)
        self.layer2 = ResLayer(BasicBlock, first, second, 2, stride=2, norm_cfg=norm)
        self.layer3 = ResLayer(BasicBlock, second, third, 2, stride=2, norm_cfg=norm)
        if decode:
            self.up3 = _UpsampleAdd(third, second)
            self.up2 = _UpsampleAdd(second, first)
            self.up1 = _UpsampleAdd(first, in_channels)

    def init_weights(self):
        """Kaiming-normal residual stages that start as identities (zero second norm)."""
        super().init_weights()
        for layer in (self.layer1, self.layer2, self.layer3):
            for module in layer.modules():
                if isinstance(module, nn.Conv2d):
                    kaiming_init(module)
                elif isinstance(module, BasicBlock):
                    constant_init(module.norm2, 0)

    def forward(self, bev: Tensor, flips: Optional[Flips] = None) -> Tuple[Tensor, ...]:
        """Encode.

        Args:
            bev (Tensor): (B, C, rows, columns).
            flips (Flips, optional): Run in a flipped frame; the results are in the true one.

        Returns:
            tuple: maps at stride 2, 4, 8 and 1; the last is the decoder's output (B, C, rows,
            columns), the one before it the encoder's deepest feature.
        """
        return self._run(bev) if flips is None else flips.leave_bev(self._run, bev)

    def _run(self, bev: Tensor) -> Tuple[Tensor, ...]:
        half = self.layer1(self.stem(bev))
        quarter = self.layer2(half)
        eighth = self.layer3(quarter)
        if not self.decode:
            return half, quarter, eighth
        up = self.up3(eighth, quarter)
        up = self.up2(up, half)
        return half, quarter, eighth, self.up1(up, bev)


@MODELS.register_module()
class BEVDecoder(BaseModule):
    """A backbone on the BEV map and a neck that joins its levels, such as SECOND and SECONDFPN.

    Args:
        backbone (dict): Returns a tuple of maps.
        neck (dict): Joins them to one map, or a list with one.
    """

    def __init__(self, backbone: dict, neck: dict, init_cfg=None):
        super().__init__(init_cfg)
        self.backbone = build_from(MODELS, backbone, 'bev_encoder.backbone')
        self.neck = build_from(MODELS, neck, 'bev_encoder.neck')

    def forward(self, bev: Tensor, flips: Optional[Flips] = None) -> Tuple[Tensor, ...]:
        """(B, C, rows, columns) to the backbone's maps and, last, the neck's."""
        return self._run(bev) if flips is None else flips.leave_bev(self._run, bev)

    def _run(self, bev: Tensor) -> Tuple[Tensor, ...]:
        maps = tuple(self.backbone(bev))
        joined = self.neck(maps)
        return (*maps, joined if isinstance(joined, Tensor) else joined[0])


class StagedEncoder(BaseModule):
    """Stages one after the other, ``self.stages``, whose maps are all given."""

    def forward(self, bev: Tensor) -> Tuple[Tensor, ...]:
        """(B, C, rows, columns) to the maps of all stages."""
        maps = []
        for stage in self.stages:
            bev = stage(bev)
            maps.append(bev)
        return tuple(maps)


@MODELS.register_module()
class GeneralizedResNet(StagedEncoder):
    """Stages of two basic residual blocks on the BEV map, as in BEVFusion.

    Args:
        in_channels (int): C of the input.
        channels (tuple): Channels of the stages.
        strides (tuple): Of the stages' first blocks.
    """

    def __init__(self, in_channels: int = 80, channels: Sequence[int] = (160, 320, 640),
                 strides: Sequence[int] = (2, 2, 1), init_cfg=None):
        super().__init__(init_cfg)
        before = (in_channels, *channels[:-1])
        self.stages = nn.ModuleList(
            ResLayer(BasicBlock, first, width, 2, stride=stride, norm_cfg=dict(type='BN'))
            for first, width, stride in zip(before, channels, strides))


def bevdet_stage(in_channels: int, channels: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """Residual blocks of which the first has a 3x3 convolution with bias in its skip, as BEVDet."""
    skip = nn.Conv2d(in_channels, channels, 3, stride, padding=1)
    return nn.Sequential(BasicBlock(in_channels, channels, stride, downsample=skip),
                         *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


@MODELS.register_module()
class BEVDetResNet(StagedEncoder):
    """Stages of residual blocks on the BEV map, as in BEVDet.

    Args:
        in_channels (int): C of the input.
        channels (tuple): Channels of the stages.
        strides (tuple): Of the stages' first blocks.
        blocks (int): Of each stage.
    """

    def __init__(self, in_channels: int = 64, channels: Sequence[int] = (128, 256, 512),
                 strides: Sequence[int] = (2, 2, 2), blocks: int = 2, init_cfg=None):
        super().__init__(init_cfg)
        before = (in_channels, *channels[:-1])
        self.stages = nn.ModuleList(bevdet_stage(first, width, blocks, stride)
                                    for first, width, stride in zip(before, channels, strides))


@MODELS.register_module()
class BEVDetFPN(BaseModule):
    """Join the deepest and the first map, then double the size; as in BEVDet.

    Unlike in :class:`LSSFPN` the first map's channels come before the deepest one's, both
    convolutions of the joined map are 3x3, and a 1x1 convolution ends the neck.

    Args:
        in_channels (tuple): Of the deepest and of the first map.
        mid_channels (int): Of the joined map.
        out_channels (int): C'.
        extra_norm_act (bool): End with batch norm and ReLU, as students of LiDAR teachers do whose
            maps are not negative.
    """

    def __init__(self, in_channels: Tuple[int, int] = (512, 128), mid_channels: int = 512,
                 out_channels: int = 256, extra_norm_act: bool = False, init_cfg=None):
        super().__init__(init_cfg)
        norm = dict(type='BN')
        self.fuse = nn.Sequential(*(
            ConvModule(c, mid_channels, 3, padding=1, bias=False, norm_cfg=norm)
            for c in (sum(in_channels), mid_channels)))
        self.refine = ConvModule(mid_channels, out_channels, 3, padding=1, bias=False,
                                 norm_cfg=norm)
        self.out = nn.Sequential(nn.Conv2d(out_channels, out_channels, 1))
        if extra_norm_act:
            self.out.extend((nn.BatchNorm2d(out_channels), nn.ReLU()))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of a backbone to (B, C', 2 rows, 2 columns) of the first."""
        first, deepest = maps[0], maps[-1]
        size = first.shape[-2:]
        joined = self.fuse(torch.cat([first, resize(deepest, size)], 1))
        return self.out(self.refine(resize(joined, [2 * n for n in size])))


@MODELS.register_module()
class BEVResNet(ResNet):
    """mmdet's ResNet on the BEV map, without max-pooling, as in Megvii's BEVDepth.

    Args:
        in_channels (int): C of the input.
        depth (int): Of the ResNet.
        base_channels (int): Of the stem and the first stage; each further stage has twice as many.
        strides (tuple): Of the stages; the stem has 2.
        **kwargs: See mmdet's ``ResNet``.
    """

    def __init__(self, in_channels: int = 160, depth: int = 18, base_channels: int = 160,
                 strides: Sequence[int] = (1, 2, 2), **kwargs):
        stages = len(strides)
        super().__init__(
            depth, in_channels=in_channels, base_channels=base_channels, num_stages=stages,
            strides=tuple(strides), dilations=(1, ) * stages, out_indices=tuple(range(stages)),
            norm_eval=False, **kwargs)

    def forward(self, bev: Tensor) -> Tuple[Tensor, ...]:
        """(B, C, rows, columns) to the input itself and the maps of all stages."""
        maps = [bev]
        bev = self.relu(self.norm1(self.conv1(bev)))
        for name in self.res_layers:
            bev = getattr(self, name)(bev)
            maps.append(bev)
        return tuple(maps)


@MODELS.register_module()
class LSSFPN(BaseModule):
    """Join the deepest and the first map, then double the size; as in BEVFusion.

    Args:
        in_channels (tuple): Of the deepest and of the first map.
        out_channels (int): C'.
    """

    def __init__(self, in_channels: Tuple[int, int] = (640, 160), out_channels: int = 256,
                 init_cfg=None):
        super().__init__(init_cfg)
        norm = dict(type='BN')
        self.fuse = nn.Sequential(
            ConvModule(sum(in_channels), out_channels, 1, bias=False, norm_cfg=norm),
            ConvModule(out_channels, out_channels, 3, padding=1, bias=False, norm_cfg=norm))
        self.refine = ConvModule(out_channels, out_channels, 3, padding=1, bias=False,
                                 norm_cfg=norm)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of a backbone to (B, C', 2 rows, 2 columns) of the first."""
        first, deepest = maps[0], maps[-1]
        size = first.shape[-2:]
        joined = self.fuse(torch.cat([resize(deepest, size), first], 1))
        return self.refine(resize(joined, [2 * n for n in size]))


def resize(maps: Tensor, size) -> Tensor:
    return F.interpolate(maps, size, mode='bilinear', align_corners=True)


class _UpsampleAdd(nn.Module):
    """Bilinear upsampling to the skip's size, 1x1 convolution, instance norm, plus the skip."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.InstanceNorm2d(out_channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        up = F.interpolate(deep, skip.shape[-2:], mode='bilinear', align_corners=False)
        return self.norm(self.conv(up)) + skip
