from .convnext import ConvNeXt
from .efficientnet import EfficientNet

__all__ = ['ConvNeXt', 'EfficientNet']
