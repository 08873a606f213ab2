"""BEVFusion's map segmentation head."""
from dataclasses import replace
from typing import Dict, Optional, Sequence, Tuple

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import PixelData
from torch import Tensor, nn

from ...errors import UserError, build_from
from ...geometry import BEVGrid
from .bev_head import BEVMapsHead, HeadOutput


@MODELS.register_module()
class BEVMapHead(BEVMapsHead):
    """Resample the map to the model's grid, then classify each cell; classes may overlap.

    Resampling is bilinear at the centres of the cells, by one constant matrix for the rows and one
    for the columns, which is deterministic on GPUs and exports. Classifier: two 3x3 convolutions
    with batch norm and ReLU, a 1x1 convolution.

    Args:
        in_channels (int): C of the BEV encoder's last map.
        classes (tuple): Names of the channels.
        grid (BEVGrid | dict): Of the prediction: the model's grid (passed by the model).
        source (dict): ``x_range``, ``y_range`` and ``resolution`` of the map that comes in.
        loss (dict): Of logits and targets of one class.
    """

    gt_fields = ('gt_bev.seg', )

    def __init__(self, in_channels: int, classes: Sequence[str], grid, source: dict,
                 loss: Optional[dict] = None, init_cfg=None):
        super().__init__(grid, init_cfg)
        self.classes = self.class_names = tuple(classes)
        self.source = replace(self.grid, **source)
        for name, matrix in zip(('rows', 'cols'), resampling(self.source, self.grid)):
            self.register_buffer(name, matrix, persistent=False)
        norm = dict(type='BN')
        self.segmentation = nn.Sequential(
            ConvModule(in_channels, in_channels, 3, padding=1, bias=False, norm_cfg=norm),
            ConvModule(in_channels, in_channels, 3, padding=1, bias=False, norm_cfg=norm),
            nn.Conv2d(in_channels, len(self.classes), 1))
        self.criterion = build_from(MODELS, loss or dict(type='BEVFocalLoss'), 'model.head.loss')

    def forward(self, features: Tuple[Tensor, ...]) -> Dict[str, Tensor]:
        """The encoder's maps to ``segmentation``, (B, classes, rows, columns) logits."""
        bev = features[-1]
        if bev.shape[-2:] != self.source.shape:
            raise UserError(f'model.head.source: it describes a map of {self.source.shape} cells, '
                            f'but the BEV encoder gives {tuple(bev.shape[-2:])}; set its ranges '
                            'and resolution to those of the BEV features')
        with torch.autocast(bev.device.type, enabled=False):
            bev = (self.rows @ bev.float()) @ self.cols.T
        return dict(segmentation=self.segmentation(bev))

    def loss(self, outs: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """``loss_<class>``, a scalar each."""
        logits = outs['segmentation'].float()
        gt = self.stack_gt(samples, 'seg').to(logits)
        if logits.shape != gt.shape:
            raise UserError(f'head: the model predicts {tuple(logits.shape)}, but the ground truth '
                            f'is {tuple(gt.shape)} (batch, classes, rows, columns); check '
                            'head.classes and model.grid against those of the ground truth')
        return {f'loss_{name}': self.criterion(logits[:, k], gt[:, k])
                for k, name in enumerate(self.classes)}

    def fill(self, decoded: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Sequence[Det3DDataSample]:
        """Fill ``pred_bev``: ``seg`` probabilities."""
        for sample, seg in zip(samples, decoded['segmentation']):
            sample.pred_bev = PixelData(seg=seg)
        return samples

    def decode(self, outs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """See :class:`BEVHead`."""
        return dict(segmentation=outs['segmentation'].float().sigmoid())

    def outputs(self) -> Dict[str, HeadOutput]:
        """See :class:`BEVHead`."""
        return dict(segmentation=HeadOutput((len(self.classes), *self.grid.shape),
                                            'probability of each class', 'map'))

    def keep_outputs(self, names: Optional[Sequence[str]] = None) -> Tuple[str, ...]:
        """See :class:`BEVHead`."""
        self.check_outputs(names)
        self.criterion = None
        return ('segmentation', )


def resampling(source: BEVGrid, target: BEVGrid) -> Tuple[Tensor, Tensor]:
    """Matrices of bilinear resampling, ``rows @ map @ cols.T``; zero beyond the source.

    Args:
        source, target (BEVGrid): Of one orientation.

    Returns:
        tuple: float32 (target rows, source rows) and (target columns, source columns).
    """
    pixel = source.to_pixel(target.centers_2d()) - 0.5  # of the source's cell centres
    return tuple(_taps(along, count) for along, count in zip(
        (pixel[:, 0, 0], pixel[0, :, 1]), source.shape))


def _taps(position: Tensor, count: int) -> Tensor:
    distance = (position[:, None] - torch.arange(count)).abs()
    return (1 - distance).clamp_min(0).float()
