"""Small building blocks shared by encoders, necks and heads."""
from mmcv.cnn import ConvModule


def conv_in_relu(in_channels: int, out_channels: int) -> ConvModule:
    """3x3 convolution without bias, instance norm without parameters, ReLU."""
    return ConvModule(in_channels, out_channels, 3, padding=1, bias=False,
                      norm_cfg=dict(type='IN', affine=False))

