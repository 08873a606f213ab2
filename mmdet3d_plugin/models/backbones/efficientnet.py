"""EfficientNet with the paddings and the stochastic depth of its first PyTorch port."""
from typing import Optional, Sequence

from mmcv.cnn.bricks import DropPath
from mmdet.models.backbones import EfficientNet as _EfficientNet
from mmdet.models.layers import InvertedResidual
from mmdet3d.registry import MODELS

from ...errors import UserError
from ..layers import SameConv2d

_NORM = dict(type='BN', momentum=0.01, eps=1e-3)


@MODELS.register_module()
class EfficientNet(_EfficientNet):
    """mmdet's EfficientNet, which builds no block beyond its last output.

    Block i of n drops its residual with probability ``drop_path_rate * i / n`` (mmdet:
    ``i / (n - 1)``), n counting the blocks that exist.

    Args:
        arch (str): ``'b0'`` to ``'b8'``.
        out_indices (tuple): 0 the stem, 1 to 5 the stages (3: stride 8, 4: stride 16, 5: stride
            32), 6 the final 1x1 convolution.
        drop_path_rate (float): See above.
        fixed_padding (bool): Pad as for the square image of ImageNet training, whatever the
            input, as ``efficientnet-pytorch`` and with it the authors' release of KD360-VoxelBEV
            do. They differ where the stride meets an odd size: in b4 at stride 8, by a pixel.
    """

    def __init__(self, arch: str = 'b0', out_indices: Sequence[int] = (6, ),
                 drop_path_rate: float = 0.2, fixed_padding: bool = False,
                 norm_cfg: dict = _NORM, init_cfg: Optional[dict] = None, **kwargs):
        if arch not in self.arch_settings or not arch.startswith('b'):
            raise UserError(f"EfficientNet.arch: expected 'b0' to 'b8', got {arch!r}")
        super().__init__(arch, drop_path_rate, tuple(out_indices),
                         conv_cfg=dict(type='SameConv2d'), norm_cfg=norm_cfg,
                         act_cfg=dict(type='SiLU'),  # one pass; mmdet's Swish takes two
                         **({} if init_cfg is None else dict(init_cfg=init_cfg)), **kwargs)
        blocks = [part for part in self.modules() if isinstance(part, InvertedResidual)]
        for index, block in enumerate(blocks[1:], start=1):
            block.drop_path = DropPath(drop_path_rate * index / len(blocks))
        if fixed_padding:
            self._fix_padding(self.arch_setting[2])

    def train(self, mode: bool = True) -> 'EfficientNet':
        """As mmdet's, which forgets to return the module."""
        super().train(mode)
        return self

    def _fix_padding(self, size: int) -> None:
        for conv in self.modules():
            if isinstance(conv, SameConv2d):
                conv.nominal_size = size
                size = -(-size // conv.stride[0])
