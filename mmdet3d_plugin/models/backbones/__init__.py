from .convnext import ConvNeXt
from .efficientnet import EfficientNet
from .mobilenet_v2 import MobileNetV2

__all__ = ['ConvNeXt', 'EfficientNet', 'MobileNetV2']
