"""Depth supervision by LiDAR scans."""
from typing import Dict, Mapping, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from ...errors import UserError
from ...geometry.depth import depth_bins, depth_maps
from ..aux_losses import AuxLoss
from ..branches import require


@MODELS.register_module()
class DepthLoss(AuxLoss):
    """Binary cross entropy between predicted depths and those of the scan; newest images only.

    Ground truth is the bin of the nearest point in each feature's cell; see
    :func:`geometry.depth.depth_maps`. Features without a point are left out.

    ========  ======  ===========  ========  =======  ==========  ======  ===========
    release   weight  activation   average   cell     nearest     border  depth bins
    ========  ======  ===========  ========  =======  ==========  ======  ===========
    BEVDepth  3       'softmax'    'points'  'floor'  'any'       1       (2, 58, .5)
    BEVDet    100     'sigmoid'    'all'     'round'  'in_bins'   None    (1, 60, 1)
    ========  ======  ===========  ========  =======  ==========  ======  ===========

    Args:
        tap (str): Address of the logits (B, N, D, h, w), such as
            ``'model.camera_branch.view_transform.depth_net@0[1]'``; run 0 is that of the newest
            images where there are past ones.
        depth (tuple): First and last bin and step, metres, as those of the view transform.
        weight (float): Of the loss.
        activation (str): ``'softmax'`` over the bins, as the view transform has it, or
            ``'sigmoid'`` of each.
        average (str): Divide the sum over the bins by the number of features with a point
            (``'points'``), or by the number of all logits (``'all'``), so that a frame with fewer
            points counts less.
        cell (str): See :func:`geometry.depth.depth_maps`.
        nearest (str): The nearest point of those ``'in_bins'``, or of ``'any'`` depth, so that one
            before the first bin hides those behind it.
        border (float, optional): See :func:`geometry.depth.depth_maps`.
        predict (bool): Fill ``pred_depth`` of predicted samples, (N, h, w) the mean of the
            predicted distribution in metres, and where there are points ``gt_depth``, (N, h, w), 0
            where there is none. For :class:`DepthMetric`.
        grid (BEVGrid): The model's grid (passed by the model); unused.

    Raises:
        UserError: An argument is unknown.
    """

    def __init__(self, tap: str, depth: Tuple[float, float, float] = (1.0, 60.0, 0.5),
                 weight: float = 3.0, activation: str = 'softmax', average: str = 'points',
                 cell: str = 'center', nearest: str = 'in_bins', border: Optional[float] = None,
                 predict: bool = False, grid=None, init_cfg=None):
        super().__init__(init_cfg)
        for name, value, known in (('activation', activation, ('softmax', 'sigmoid')),
                                   ('average', average, ('points', 'all')),
                                   ('nearest', nearest, ('in_bins', 'any')),
                                   ('cell', cell, ('center', 'floor', 'round'))):
            if value not in known:
                raise UserError(f'DepthLoss.{name}: expected {" or ".join(map(repr, known))}, got '
                                f'{value!r}')
        self.tap, self.taps, self.bins, self.weight = tap, {tap}, tuple(depth), weight
        self.activation, self.average, self.cell = activation, average, cell
        self.range = self.bins[:2] if nearest == 'in_bins' else (0.0, float('inf'))
        self.border = border
        self.predicts = predict

    def forward(self, taps: Mapping[str, Tensor], inputs: dict,
                samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """See :class:`AuxLoss`; ``inputs`` has ``points``, the scan of the newest time."""
        require(inputs, 'points', 'points', 'LoadPointCloud')
        logits = taps[self.tap].float()
        depth = depth_maps(inputs['points'], inputs['rig'], logits.shape[-2:], self.cell,
                           self.range, self.border)
        index, inside = depth_bins(depth, self.bins)
        target = F.one_hot(index, logits.shape[2]).movedim(-1, 2).to(logits)
        with torch.autocast(logits.device.type, enabled=False):
            if self.activation == 'sigmoid':
                loss = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
            else:
                loss = F.binary_cross_entropy(logits.softmax(2), target, reduction='none')
            loss = (loss.sum(2) * inside).sum()
        count = inside.sum().clamp_min(1) if self.average == 'points' else logits.numel()
        return dict(loss=self.weight * loss / count)

    def predict(self, taps: Mapping[str, Tensor], inputs: dict,
                samples: Sequence[Det3DDataSample]) -> None:
        """See :class:`AuxLoss`."""
        logits = taps[self.tap].float()
        if len(logits) != len(samples):
            raise UserError('DepthLoss.predict: the samples of a batch were predicted one by one; '
                            'set camera_branch.keep=0')
        centers = torch.arange(*self.bins, device=logits.device) + self.bins[2] / 2
        depth = (logits.softmax(2) * centers[:, None, None]).sum(2)
        truth = None if inputs.get('points') is None else depth_maps(
            inputs['points'], inputs['rig'], logits.shape[-2:], self.cell)
        for n, sample in enumerate(samples):
            sample.set_field(depth[n], 'pred_depth')
            if truth is not None:
                sample.set_field(truth[n], 'gt_depth')
