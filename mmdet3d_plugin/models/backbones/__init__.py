from .efficientnet import EfficientNet

__all__ = ['EfficientNet']
