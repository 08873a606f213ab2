"""Depth nets: image features and the cameras' calibration to context and depth logits."""
from abc import ABCMeta, abstractmethod
from typing import Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import UserError
from ...geometry import CameraRig
from ...geometry.cameras import invert
from ..bev_encoders import bevdet_stage
from .deform_conv import DeformConv2d


class DepthNet(BaseModule, metaclass=ABCMeta):
    """Context and depth logits of every feature, which know the camera that saw it.

    The calibration is that of ``rig.calibration`` where it is set, else of the rig.
    """

    @abstractmethod
    def forward(self, features: Tensor, rig: CameraRig) -> Tuple[Tensor, Tensor]:
        """Predict.

        Args:
            features (Tensor): (B, N, C, h, w).
            rig (CameraRig): N pinhole cameras.

        Returns:
            tuple: context (B, N, C', h, w), and logits of the depths (B, N, D, h, w).
        """


@MODELS.register_module()
class BEVDetDepthNet(DepthNet):
    """Depth net of BEVDepth4D in BEVDet: 33 calibration values gate the features.

    A 1x1 convolution gives the context. For the depth, another one times a sigmoid gate of the
    calibration, three residual blocks, a modulated deformable convolution with batch norm, and a
    1x1 convolution.

    Args:
        in_channels (int): Of the features.
        channels (int): C', of the context.
        num_bins (int): D.
        mid_channels (int): Of the depth's features.
    """

    def __init__(self, in_channels: int = 512, channels: int = 64, num_bins: int = 59,
                 mid_channels: int = 256, init_cfg=None):
        super().__init__(init_cfg)
        self.context = nn.Conv2d(in_channels, channels, 1)
        self.input_conv = nn.Conv2d(in_channels, mid_channels, 1)
        self.gate = nn.Sequential(nn.BatchNorm1d(33), nn.Linear(33, mid_channels), nn.Sigmoid())
        self.blocks = bevdet_stage(mid_channels, mid_channels, 3)
        self.deform = nn.Sequential(DeformConv2d(mid_channels, mid_channels),
                                    nn.BatchNorm2d(mid_channels))
        self.depth = nn.Conv2d(mid_channels, num_bins, 1)

    def forward(self, features: Tensor, rig: CameraRig) -> Tuple[Tensor, Tensor]:
        """See :class:`DepthNet`."""
        views = features.shape[:2]
        features = features.flatten(0, 1)
        gate = self.gate(per_view(bevdet_calibration(rig), views).to(features))
        depth = self.input_conv(features) * gate[..., None, None]
        depth = self.depth(self.deform(self.blocks(depth)))
        return self.context(features).unflatten(0, views), depth.unflatten(0, views)


@MODELS.register_module()
class MegviiDepthNet(DepthNet):
    """Depth net of Megvii's BEVDepth: 27 calibration values squeeze and excite both paths.

    A 3x3 convolution reduces the features. Context: squeeze-and-excitation by an MLP of the
    calibration, 1x1 convolution. Depth: the same with weights of its own, three residual blocks,
    ASPP, a deformable convolution of four groups, 1x1 convolution.

    Args:
        in_channels (int): Of the features.
        channels (int): C', of the context.
        num_bins (int): D.
        mid_channels (int): Of both paths.
    """

    def __init__(self, in_channels: int = 512, channels: int = 80, num_bins: int = 112,
                 mid_channels: int = 512, init_cfg=None):
        super().__init__(init_cfg)
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1), nn.BatchNorm2d(mid_channels),
            nn.ReLU())
        self.bn = nn.BatchNorm1d(27)
        self.context_mlp, self.depth_mlp = (_MLP(27, mid_channels) for _ in range(2))
        self.context_se, self.depth_se = (_SqueezeExcite(mid_channels) for _ in range(2))
        self.context_conv = nn.Conv2d(mid_channels, channels, 1)
        self.depth_conv = nn.Sequential(
            *(BasicBlock(mid_channels, mid_channels) for _ in range(3)),
            ASPP(mid_channels, mid_channels),
            DeformConv2d(mid_channels, mid_channels, groups=4, bias=False, modulated=False),
            nn.Conv2d(mid_channels, num_bins, 1))

    def forward(self, features: Tensor, rig: CameraRig) -> Tuple[Tensor, Tensor]:
        """See :class:`DepthNet`."""
        views = features.shape[:2]
        values = self.bn(per_view(bevdepth_calibration(rig), views).to(features))
        features = self.reduce_conv(features.flatten(0, 1))
        context = self.context_se(features, self.context_mlp(values))
        depth = self.depth_se(features, self.depth_mlp(values))
        return (self.context_conv(context).unflatten(0, views),
                self.depth_conv(depth).unflatten(0, views))


class _MLP(nn.Module):
    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(in_channels, channels)
        self.fc2 = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x).relu())


class _SqueezeExcite(nn.Module):
    """Features (B, C, h, w) times a gate of a vector (B, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor, vector: Tensor) -> Tensor:
        hidden = self.conv_reduce(vector[..., None, None]).relu()
        return features * self.conv_expand(hidden).sigmoid()


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLabv3, dilations 1, 6, 12, 18 and the image's mean.

    Args:
        in_channels, channels (int): C and C', which is that of the branches too.
        dropout (float): Probability, at the end.
    """

    def __init__(self, in_channels: int, channels: int, dropout: float = 0.5):
        super().__init__()
        for n, dilation in enumerate((1, 6, 12, 18)):
            kernel, padding = (1, 0) if dilation == 1 else (3, dilation)
            self.add_module(f'aspp{n + 1}', _conv_bn_relu(in_channels, channels, kernel,
                                                          padding=padding, dilation=dilation))
        self.pool = _conv_bn_relu(in_channels, channels, 1)
        self.join = _conv_bn_relu(5 * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        branches = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x)]
        mean = self.pool(x.mean((-2, -1), keepdim=True))
        branches.append(mean.expand_as(branches[0]))
        return self.dropout(self.join(torch.cat(branches, 1)))


def _conv_bn_relu(in_channels: int, channels: int, kernel: int, **kwargs) -> ConvModule:
    return ConvModule(in_channels, channels, kernel, bias=False, norm_cfg=dict(type='BN'),
                      **kwargs)


@MODELS.register_module()
class DepthRefinement(BaseModule):
    """BEVDepth's depth refinement: convolutions over (column, depth) of the lifted volume.

    Runs in float32.

    Args:
        channels (int): C, kept.
    """

    def __init__(self, channels: int = 80, init_cfg=None):
        super().__init__(init_cfg)
        self.reduce_conv = _conv_bn_relu(channels, channels, 3, padding=1)
        self.conv = nn.Sequential(*(_conv_bn_relu(channels, channels, 3, padding=1)
                                    for _ in range(2)))
        self.out_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, C, D, h, w) lifted features -> the same."""
        batch = volume.shape[0]
        with torch.autocast(volume.device.type, enabled=False):
            images = volume.float().permute(0, 3, 1, 4, 2).flatten(0, 1)  # (B * h, C, w, D)
            images = self.reduce_conv(images)
            images = self.out_conv(self.conv(images) + images)
        return images.unflatten(0, (batch, -1)).permute(0, 2, 4, 1, 3)


def per_view(values: Tensor, views: Tuple[int, int]) -> Tensor:
    """(B or 1, N, K) values of a rig to (B * N, K)."""
    return values.expand(*views, -1).flatten(0, 1)


def bevdet_calibration(rig: CameraRig) -> Tensor:
    """The 33 values of BEVDet's depth net, (B or 1, N, 33) float32.

    Intrinsic matrix (9, row by row), linear part of the image augmentation as a 3x3 matrix (9) and
    its translation (3), rotation (9) and translation (3) from the camera to the augmented LiDAR
    frame.
    """
    rig = _pinholes(rig)
    img_aug = torch.zeros_like(rig.img_aug)
    img_aug[..., :2, :2] = rig.img_aug[..., :2, :2]
    img_aug[..., 2, 2] = 1
    shift = F.pad(rig.img_aug[..., :2, 2], (0, 1))
    pose = rig.cam2lidar
    return torch.cat([rig.params, img_aug.flatten(-2), shift, pose[..., :3, :3].flatten(-2),
                      pose[..., :3, 3]], -1)


def bevdepth_calibration(rig: CameraRig) -> Tensor:
    """The 27 values of Megvii's depth net, (B or 1, N, 27) float32.

    ``fx fy cx cy``; the image augmentation's first two rows; ``[0, 0] [0, 1] [1, 0] [1, 1] [2, 2]``
    of the BEV augmentation; the first three rows from the camera to the frame before the BEV
    augmentation, row by row.
    """
    rig = _pinholes(rig)
    matrix = rig.params.unflatten(-1, (3, 3))
    intrinsics = torch.stack([matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 0, 2],
                              matrix[..., 1, 2]], -1)
    identity = torch.eye(4, device=matrix.device)[None]
    aug = identity if rig.bev_aug is None else rig.bev_aug
    views = matrix.shape[1]
    scene = torch.stack([aug[:, 0, 0], aug[:, 0, 1], aug[:, 1, 0], aug[:, 1, 1], aug[:, 2, 2]],
                        -1)[:, None].expand(-1, views, -1)
    pose = invert(rig.lidar2cam @ aug[:, None])[..., :3, :].flatten(-2)
    parts = intrinsics, rig.img_aug[..., :2, :].flatten(-2), scene, pose
    batch = max(len(part) for part in parts)
    return torch.cat([part.expand(batch, -1, -1) for part in parts], -1)


def _pinholes(rig: CameraRig) -> CameraRig:
    rig = rig.calibration or rig
    if rig.lens != 'pinhole':
        raise UserError(f'this depth net reads the calibration of pinholes, but the cameras have '
                        f'the lens {rig.lens!r}; leave out view_transform.depth_net, or choose one '
                        'for that lens')
    return rig
