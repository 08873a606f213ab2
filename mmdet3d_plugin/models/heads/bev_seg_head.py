"""Segmentation, centerness and offset heads on the BEV map."""
from typing import Dict, Optional, Sequence, Tuple

from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import bias_init_with_prob
from mmengine.structures import PixelData
from torch import Tensor, nn

from ...errors import UserError, build_from
from ..layers import conv_in_relu
from ..losses import UncertaintyWeights
from .bev_head import BEVMapsHead, HeadOutput

_LOSS_WEIGHTS = dict(segmentation=10.0, centerness=0.5, offset=0.5)
_GT_FIELDS = dict(segmentation='seg', centerness='centerness', offset='offset')
_MEANINGS = dict(segmentation='probability of each class', centerness='in [0, 1]',
                 offset='(row, column) in cells from a cell to the centre of its object')
_LOSSES = dict(segmentation=dict(type='BEVFocalLoss'), centerness=dict(type='BalancedMSELoss'),
               offset=dict(type='OffsetL1Loss'))


@MODELS.register_module()
class BEVSegHead(BEVMapsHead):
    """One small network per task: 3x3 conv, IN, ReLU, 1x1 conv.

    Args:
        in_channels (int): C of the BEV encoder's last map.
        num_classes (int): K segmentation channels.
        tasks (tuple): Of ``'segmentation'``, ``'centerness'``, ``'offset'``; a deployed student
            needs the first only.
        losses (dict): Overrides of the tasks' losses.
        loss_weights (dict): Overrides of the tasks' constant factors, which the learned
            uncertainty weights multiply.
        learn_weights (bool): Learn the uncertainty weights; False weighs by the loss_weights alone.
        prior_prob (float, optional): Initial foreground probability of the segmentation; None keeps
            PyTorch's default bias.
        grid (BEVGrid, optional): The model's grid (passed by the model).
        instances (dict, optional): Groups predictions to instances, such as
            ``dict(type='CenterGrouping')``; needs all three tasks. Off when None.
    """

    def __init__(self, in_channels: int, num_classes: int = 1,
                 tasks: Tuple[str, ...] = ('segmentation', 'centerness', 'offset'),
                 losses: Optional[dict] = None, loss_weights: Optional[dict] = None,
                 learn_weights: bool = True, prior_prob: Optional[float] = None,
                 grid=None, instances: Optional[dict] = None, init_cfg=None):
        super().__init__(grid, init_cfg)
        self.tasks = tuple(tasks)
        self.channels = channels = dict(segmentation=num_classes, centerness=1, offset=2)
        for given in (self.tasks, losses or {}, loss_weights or {}):
            unknown = set(given) - set(channels)
            if unknown:
                raise UserError(f'BEVSegHead: unknown task {sorted(unknown)}; known: '
                                f'{", ".join(channels)}')
        if len(set(self.tasks)) != len(self.tasks) or not self.tasks:
            raise UserError(f'tasks: expected each once and one at least, got {self.tasks}')
        if 'segmentation' not in self.tasks and ('offset' in self.tasks or prior_prob is not None):
            raise UserError('the task offset and prior_prob need the task segmentation, but tasks '
                            f'is {self.tasks}')
        if instances is not None and set(self.tasks) != set(channels):
            raise UserError(f'instances need the tasks {", ".join(channels)}, but tasks is '
                            f'{self.tasks}; add the others or set instances=None')
        self.instances = build_from(MODELS, instances, 'model.head.instances')
        if instances is not None:
            self.pred_fields = ('pred_bev', 'pred_instances_3d')
        for task in self.tasks:
            self.add_module(task, nn.Sequential(
                conv_in_relu(in_channels, in_channels), nn.Conv2d(in_channels, channels[task], 1)))
        if prior_prob is not None:
            nn.init.constant_(self.segmentation[-1].bias, bias_init_with_prob(prior_prob))
        losses = {**_LOSSES, **(losses or {})}
        self.losses = nn.ModuleDict({
            task: build_from(MODELS, losses[task], f'model.head.losses.{task}')
            for task in self.tasks})
        loss_weights = {**_LOSS_WEIGHTS, **(loss_weights or {})}
        self.weights = UncertaintyWeights({task: loss_weights[task] for task in self.tasks},
                                          learn_weights)

    def forward(self, features: Tuple[Tensor, ...]) -> Dict[str, Tensor]:
        """The encoder's maps to raw outputs: segmentation (B, K, rows, columns) logits,
        centerness (B, 1, ...) in (0, 1), offset (B, 2, ...) in cells as (row, column).
        """
        outs = {task: getattr(self, task)(features[-1]) for task in self.tasks}
        if 'centerness' in outs:
            outs['centerness'] = outs['centerness'].sigmoid()
        return outs

    @property
    def gt_fields(self) -> Tuple[str, ...]:
        """See :class:`BEVHead`."""
        return tuple(f'gt_bev.{_GT_FIELDS[task]}' for task in self.tasks)

    def loss(self, outs: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """Weighted task losses, ``loss_<task>`` each a scalar."""
        gt = {task: self.stack_gt(samples, _GT_FIELDS[task]).float() for task in self.tasks}
        self._check_shapes(outs, gt)
        fg_mask = gt['segmentation'].amax(1) > 0 if 'segmentation' in gt else None
        losses = {task: self.losses[task](outs[task].float(), gt[task], fg_mask)
                  for task in self.tasks}
        return {f'loss_{task}': loss for task, loss in self.weights(losses).items()}

    def fill(self, decoded: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Sequence[Det3DDataSample]:
        """Fill ``pred_bev``: ``seg`` probability, ``centerness``, ``offset``, and, where asked
        for, ``instances`` and ``pred_instances_3d``.
        """
        maps = {_GT_FIELDS[task]: out for task, out in decoded.items()}
        for i, sample in enumerate(samples):
            sample.pred_bev = PixelData(**{name: values[i] for name, values in maps.items()})
            if self.instances is not None:
                bev = sample.pred_bev
                bev.instances = self.instances(bev.seg, bev.centerness, bev.offset)
                sample.pred_instances_3d = self.instances.boxes(bev, self.grid)
        return samples

    def decode(self, outs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """See :class:`BEVHead`."""
        return {task: out.float().sigmoid() if task == 'segmentation' else out.float()
                for task, out in outs.items()}

    def outputs(self) -> Dict[str, HeadOutput]:
        """See :class:`BEVHead`."""
        return {task: HeadOutput((self.channels[task], *self.grid.shape), _MEANINGS[task],
                                 'objects' if task == 'segmentation' else None)
                for task in self.tasks}

    def keep_outputs(self, names: Optional[Sequence[str]] = None) -> Tuple[str, ...]:
        """See :class:`BEVHead`; by default the segmentation, and all if instances are grouped."""
        if names is None:
            everything = self.instances is not None or 'segmentation' not in self.tasks
            names = self.tasks if everything else ('segmentation', )
        self.check_outputs(names)
        for task in set(self.tasks) - set(names):
            delattr(self, task)
        self.tasks = tuple(task for task in self.tasks if task in names)
        self.instances = self.losses = self.weights = None
        return self.tasks

    def _check_shapes(self, outs, gt):
        for task in self.tasks:
            if outs[task].shape != gt[task].shape:
                raise UserError(
                    f'head.{task}: the model predicts {tuple(outs[task].shape)}, but the ground '
                    f'truth is {tuple(gt[task].shape)} (batch, channels, rows, columns); check '
                    'num_classes against RasterizeBEV.classes and the two grids')
