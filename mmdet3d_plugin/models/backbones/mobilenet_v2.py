"""MobileNetV2 without parameters that nothing trains."""
from mmdet.models.backbones import MobileNetV2 as MMDetMobileNetV2
from mmdet3d.registry import MODELS


@MODELS.register_module()
class MobileNetV2(MMDetMobileNetV2):
    """mmdet's MobileNetV2, whose last convolution has no gradient where its map is no output.

    Distributed training asks that every parameter has one.

    Args:
        *args: See mmdet's ``MobileNetV2``.
        **kwargs: See mmdet's ``MobileNetV2``.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if 7 not in self.out_indices:
            self.conv2.requires_grad_(False)
