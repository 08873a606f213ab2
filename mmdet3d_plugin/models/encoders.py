"""Image encoders: a backbone and a neck that ends in one feature map."""
import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..errors import build_from
from .layers import wrap_columns


@MODELS.register_module()
class ImageEncoder(BaseModule):
    """Backbone and neck applied to every view of a rig.

    Args:
        backbone (dict): Returns a tuple of feature maps.
        neck (dict): Joins that tuple to one map, or a list with one.
        in_channels (int): Channels of the input. Where a pretrained backbone expects three and
            there are more or fewer, a bias-free 1x1 convolution adapts them.
        wrap (bool): Pad circularly along the width; for panoramas.
    """

    def __init__(self, backbone: dict, neck: dict, in_channels: int = 3, wrap: bool = False,
                 init_cfg=None):
        super().__init__(init_cfg)
        self.backbone = build_from(MODELS, backbone, 'encoder.backbone')
        self.neck = build_from(MODELS, neck, 'encoder.neck')
        self.input_proj = nn.Conv2d(in_channels, 3, 1, bias=False) if in_channels != 3 else None
        if wrap:
            wrap_columns(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', h, w); channels last in memory on a CPU."""
        on_cpu = images.device.type == 'cpu'
        images = images.contiguous(
            memory_format=torch.channels_last if on_cpu else torch.contiguous_format)
        if self.input_proj is not None:
            images = self.input_proj(images)
        features = self.neck(self.backbone(images))
        return features if isinstance(features, torch.Tensor) else features[0]


@MODELS.register_module()
class LiDARImageEncoder(ImageEncoder):
    """The image encoder of the LiDAR image (KD360-VoxelBEV Sec. 3.1): range, ambient, intensity.

    A two-dimensional backbone reads the scan as an image, so that geometry and camera features
    share one kind of network; see :class:`ImageEncoder` for the arguments.
    """
