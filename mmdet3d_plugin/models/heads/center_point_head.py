"""CenterPoint's head: a heatmap of centres for each class and a box in each cell."""
import copy
from dataclasses import asdict
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from mmcv.cnn import ConvModule
from mmdet3d.models.dense_heads.centerpoint_head import SeparateHead
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.dist import all_reduce
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import UserError, build_from, did_you_mean
from ..layers import freeze_bn_stats
from .bev_head import BEVHead, HeadOutput
from .box_decoding import decode_boxes, task_decodings
from .center_targets import CenterTargetDrawer, CenterTargets, class_channels

_PARTS = dict(xy=slice(0, 2), z=slice(2, 3), whl=slice(3, 6), yaw=slice(6, 8), vel=slice(8, 10))
_BRANCHES = dict(reg=2, height=1, dim=3, rot=2, vel=2)
_MEANINGS = dict(
    heatmap='logits of the classes', reg='centre in its cell along columns and rows, cells',
    height='z, metres', dim='length, width, height', rot='sine and cosine of the yaw',
    vel='velocity along x and y')
_TRAIN = dict(gaussian_overlap=0.1, min_radius=2, max_objs=500, rounding='floor', code_weights=None)
_TEST = ('max_num', 'score_threshold', 'post_center_range', 'nms_type', 'nms_thr',
         'squared_radius', 'scale_factors', 'pre_max_size', 'post_max_size')


@MODELS.register_module()
class CenterPointHead(BEVHead):
    """CenterPoint's head, with the layers and the parameter names of mmdet3d's ``CenterHead``.

    Tasks name their classes, and labels are those of the sample's ``metainfo['classes']``: the
    order of neither matters, and objects of other classes are ignored. Boxes and velocities are in
    the sample's LiDAR frame whatever the orientation of the grid.

    Args:
        in_channels (int): C of the BEV encoder's last map.
        tasks (list[list[str]]): Class names of each task.
        grid (BEVGrid): The model's grid (passed by the model).
        shared_channels (int, optional): Of the 3x3 convolution before the tasks; None: there is
            none, and the tasks read the encoder's map.
        common_heads (dict, optional): Channels and convolutions of each branch beside the heatmap;
            defaults to ``reg``, ``height``, ``dim``, ``rot`` and ``vel`` with two convolutions.
            The velocity may be left out.
        num_heatmap_convs (int): Convolutions of the heatmap.
        separate_head (dict, optional): mmdet3d's ``SeparateHead`` (default, 3x3 convolutions) or
            ``DCNSeparateHead``. Its ``init_bias`` is the heatmap's bias before training.
        norm_bbox (bool): Predict the logarithm of the size.
        z (str): ``'center'``: the height of a box is that of its centre, as in mmdet3d, BEVDet and
            Megvii's BEVDepth; ``'bottom'``: of its lower face.
        velocity (str): ``'speed'``: the network predicts m/s; ``'displacement'``: metres between
            the frame and the newest past image (BEVDet4D), which is ``past_interval`` seconds of
            the sample's metainfo. Ground truth and predictions are in m/s.
        loss_cls (dict, optional): Of heatmaps; defaults to ``mmdet.GaussianFocalLoss``.
        loss_bbox (dict, optional): Of codes; defaults to ``mmdet.L1Loss`` with weight 0.25.
        split_bbox_loss (bool): Log ``loss_xy``, ``loss_z``, ``loss_whl``, ``loss_yaw`` and
            ``loss_vel`` instead of ``loss_bbox``, their sum.
        average_over_processes (bool): Divide by the mean number of objects of all processes, as
            Megvii does, and not by each process's own, as mmdet3d does.
        train_cfg (dict, optional): ``gaussian_overlap`` (0.1), ``min_radius`` (2), ``max_objs``
            (500) and ``rounding``, see :class:`CenterTargetDrawer`, and ``code_weights``: of the 10
            codes (8 without velocity) in the order of the branches above; 1 by default.
        test_cfg (dict, optional): See :class:`TaskDecoding`: one value, or one for each task.

    Raises:
        UserError: There is no grid, a class occurs twice, or a setting is unknown.
    """

    gt_fields = ('gt_instances_3d.bboxes_3d', 'gt_instances_3d.labels_3d')
    pred_fields = ('pred_instances_3d', )

    def __init__(self, in_channels: int, tasks: Sequence[Sequence[str]], grid=None,
                 shared_channels: Optional[int] = 64, common_heads: Optional[dict] = None,
                 num_heatmap_convs: int = 2, separate_head: Optional[dict] = None,
                 norm_bbox: bool = True, z: str = 'center', velocity: str = 'speed',
                 loss_cls: Optional[dict] = None, loss_bbox: Optional[dict] = None,
                 split_bbox_loss: bool = False, average_over_processes: bool = True,
                 train_cfg: Optional[dict] = None, test_cfg: Optional[dict] = None, init_cfg=None):
        super().__init__(grid, init_cfg)
        if self.grid is None:
            raise UserError('grid: boxes need one; build the head in a model, or pass grid')
        self.tasks = _checked_tasks(tasks)
        self.class_names = tuple(name for task in self.tasks for name in task)
        self.num_classes = tuple(map(len, self.tasks))
        for name, value, known in (('z', z, ('center', 'bottom')),
                                   ('velocity', velocity, ('speed', 'displacement'))):
            if value not in known:
                raise UserError(f'{name}: expected {known[0]!r} or {known[1]!r}, got {value!r}')
        self.norm_bbox, self.z, self.velocity = norm_bbox, z, velocity
        self.split_bbox_loss = split_bbox_loss
        self.average_over_processes = average_over_processes
        self._build_layers(in_channels, shared_channels, num_heatmap_convs, common_heads,
                           separate_head or dict(type='SeparateHead', final_kernel=3))
        self.loss_cls = build_from(MODELS, loss_cls or dict(type='mmdet.GaussianFocalLoss'),
                                   'model.head.loss_cls')
        self.loss_bbox = build_from(MODELS, loss_bbox or dict(
            type='mmdet.L1Loss', loss_weight=0.25), 'model.head.loss_bbox')
        train = {**_TRAIN, **_known(train_cfg, _TRAIN, 'train_cfg')}
        weights = train.pop('code_weights') or [1.0] * sum(self.channels.values())
        if len(weights) != sum(self.channels.values()):
            raise UserError(f'train_cfg.code_weights: expected {sum(self.channels.values())} '
                            f'values, of {", ".join(self.channels)}, got {len(weights)}')
        self.register_buffer('code_weights', torch.tensor(weights, dtype=torch.float32),
                             persistent=False)
        self.draw_targets = CenterTargetDrawer(self.grid, self.num_classes, norm_bbox=norm_bbox,
                                               **train)
        self.decodings = task_decodings(self.tasks, **_known(test_cfg, _TEST, 'test_cfg'))
        self._tables: Dict[tuple, Tensor] = {}

    def _build_layers(self, in_channels, shared_channels, num_heatmap_convs, common_heads, cfg):
        """Layers by mmdet3d's names; the bias of the heatmaps has its initial value."""
        heads = common_heads or {name: (count, 2) for name, count in _BRANCHES.items()}
        self.channels = {name: heads[name][0] for name in _BRANCHES if name in heads}
        wrong = {name: count for name, (count, _) in heads.items() if _BRANCHES.get(name) != count}
        missing = _BRANCHES.keys() - heads.keys() - {'vel'}
        if wrong or missing:
            raise UserError('common_heads: expected the branches and channels '
                            f'{_BRANCHES}, vel or not, got {dict(heads)}')
        self.shared_conv = nn.Identity() if shared_channels is None else ConvModule(
            in_channels, shared_channels, 3, padding=1, norm_cfg=dict(type='BN2d'))
        # A list without init_weights: like mmdet3d's CenterHead, this one never calls that of
        # SeparateHead, whose Kaiming initialisation gives logits of +-10.
        self.task_heads = nn.ModuleList()
        for count in self.num_classes:
            own = dict(copy.deepcopy(dict(heads)), heatmap=(count, num_heatmap_convs))
            head = build_from(MODELS, copy.deepcopy(dict(cfg)), 'model.head.separate_head',
                              in_channels=shared_channels or in_channels, heads=own, num_cls=count)
            last = (head.heatmap if isinstance(head, SeparateHead) else head.cls_head)[-1]
            nn.init.constant_(last.bias, head.init_bias)
            self.task_heads.append(head)
        self.kept: Optional[Tuple[str, ...]] = None

    def forward(self, features: Tuple[Tensor, ...]) -> Dict[str, Tensor]:
        """The encoder's maps to ``task<t>.<branch>``, (B, channels, rows, columns) each.

        ``heatmap`` has logits, ``dim`` logarithms (with norm_bbox).
        """
        shared = self.shared_conv(features[-1])
        if not isinstance(self.task_heads[0], SeparateHead):
            shared = shared.contiguous()  # mmcv's deformable convolution takes no other
        if shared.shape[-2:] != self.grid.shape:
            raise UserError(f'head: the BEV encoder gives maps of {tuple(shared.shape[-2:])} '
                            f'cells, but model.grid has {self.grid.shape}; give the grid the '
                            "resolution of the encoder's last map")
        outs = {f'task{t}.{name}': out for t, head in enumerate(self.task_heads)
                for name, out in head(shared).items()}
        return outs if self.kept is None else {name: outs[name] for name in self.kept}

    # Training ----------------------------------------------------------------------------------

    def loss(self, outs: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """``task<t>.loss_heatmap`` and ``task<t>.loss_bbox``, or its parts, a scalar each.

        The outputs are not changed. Values of the ground truth that are NaN, such as an unknown
        velocity, have no loss.

        Raises:
            UserError: A sample has no boxes, or no names for their labels.
        """
        for sample in samples:
            if 'bboxes_3d' not in sample.get('gt_instances_3d', {}):
                raise UserError('training needs ground truth, but the sample has no '
                                'gt_instances_3d.bboxes_3d; let the pipeline load boxes')
        return self.loss_of_boxes(outs, [sample.gt_instances_3d for sample in samples], samples)

    def loss_of_boxes(self, outs: Dict[str, Tensor], instances: Sequence[InstanceData],
                      samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """The loss of given boxes, such as another model's predictions.

        Args:
            outs (dict): Of :meth:`forward`.
            instances (list): Of each sample, ``bboxes_3d`` with velocities in m/s and
                ``labels_3d``, as in ``gt_instances_3d`` and ``pred_instances_3d``.
            samples (list): Whose metainfo names the classes of the labels.
        """
        targets = self.targets(instances, samples, outs['task0.heatmap'].device)
        heatmaps = targets.heatmap.split(self.num_classes, 1)
        counts = torch.stack([*(heatmap.eq(1).sum() for heatmap in heatmaps),
                              *targets.mask.sum((0, 2))]).float()
        if self.average_over_processes:
            all_reduce(counts, op='mean')
        peaks, objects = counts.view(2, -1)
        losses: Dict[str, Tensor] = {}
        for t, heatmap in enumerate(heatmaps):
            own = {name: outs[f'task{t}.{name}'].float() for name in ('heatmap', *self.channels)}
            losses[f'task{t}.loss_heatmap'] = self.loss_cls(
                own.pop('heatmap').sigmoid().clamp(1e-4, 1 - 1e-4), heatmap,
                avg_factor=peaks[t].clamp_min(1))
            parts = self._box_losses(own, CenterTargets(heatmap, *(
                part[:, t] for part in targets[1:])), objects[t] + 1e-4)
            if not self.split_bbox_loss:
                parts = dict(bbox=sum(parts.values()))
            losses.update({f'task{t}.loss_{name}': loss for name, loss in parts.items()})
        return losses

    def frozen_loss(self, features: Tuple[Tensor, ...], instances: Sequence[InstanceData],
                    samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """The loss of given boxes of this head as a fixed function of the features.

        The gradient reaches the features alone; neither parameters nor running statistics change.

        Args:
            features (tuple): As in :meth:`forward`.
            instances, samples: As in :meth:`loss_of_boxes`.
        """
        state = {name: parameter.detach() for name, parameter in self.named_parameters()}
        with freeze_bn_stats(self):
            outs = functional_call(self, state, (features, ))
        return self.loss_of_boxes(outs, instances, samples)

    def targets(self, instances: Sequence[InstanceData], samples: Sequence[Det3DDataSample],
                device=None) -> CenterTargets:
        """The targets of a batch, see :class:`CenterTargets`; without velocity 8 codes."""
        drawn = []
        for own, sample in zip(instances, samples):
            boxes = own.bboxes_3d.to(own.labels_3d.device if device is None else device)
            z = boxes.gravity_center[:, 2:] if self.z == 'center' else boxes.tensor[:, 2:3]
            values = torch.cat([boxes.tensor[:, :2], z, boxes.tensor[:, 3:7]], 1).float()
            if 'vel' in self.channels:
                values = torch.cat([values, self._velocity(boxes.tensor, sample)], 1)
            table = self._table(sample, values.device)
            labels = own.labels_3d.to(values.device)
            known = (labels >= 0) & (labels < len(table) - 1)
            drawn.append(self.draw_targets(values, table[labels.where(known, len(table) - 1)]))
        return CenterTargets.stack(drawn)

    def _velocity(self, boxes: Tensor, sample: Det3DDataSample) -> Tensor:
        if boxes.shape[1] < 9:
            return boxes.new_full((len(boxes), 2), float('nan')).float()
        return boxes[:, 7:9].float() * self._seconds(sample)

    def _box_losses(self, outs: Mapping[str, Tensor], targets: CenterTargets,
                    objects: Tensor) -> Dict[str, Tensor]:
        codes = torch.cat([outs[name] for name in self.channels], 1).flatten(2)
        index = targets.index[:, None].expand(-1, codes.shape[1], -1)
        codes = codes.gather(2, index).mT
        known = ~targets.codes.isnan()
        target = targets.codes.where(known, 0)
        weights = (known & targets.mask[..., None]) * self.code_weights
        return {name: self.loss_bbox(codes[..., part], target[..., part], weights[..., part],
                                     avg_factor=objects)
                for name, part in _PARTS.items() if part.stop <= codes.shape[-1]}

    # Prediction --------------------------------------------------------------------------------

    def decode(self, outs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """The raw outputs in float32; :meth:`fill` decodes boxes, outside a deployed network."""
        return {name: out.float() for name, out in outs.items()}

    def fill(self, decoded: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Sequence[Det3DDataSample]:
        """Fill ``pred_instances_3d``: the tasks one after another, the best box first in each.

        Raises:
            UserError: An output was left out, or a sample has no names for the labels.
        """
        for name in self._names():
            if name not in decoded:
                raise UserError(f'boxes need all outputs of the head, but there is no {name}; '
                                'export them all')
        found: List[list] = [decode_boxes(
            {name: decoded[f'task{t}.{name}'] for name in ('heatmap', *self.channels)}, self.grid,
            decoding, self.norm_bbox, self.z == 'bottom')
            for t, decoding in enumerate(self.decodings)]
        for sample, *tasks in zip(samples, *found):
            boxes = torch.cat([task.boxes for task in tasks])
            if 'vel' in self.channels:
                boxes[:, 7:] /= self._seconds(sample)
            labels = torch.cat([torch.tensor(own, device=boxes.device)[task.classes]
                                for own, task in zip(self._labels(sample), tasks)])
            sample.pred_instances_3d = InstanceData(
                bboxes_3d=LiDARInstance3DBoxes(boxes, boxes.shape[1], origin=(0.5, 0.5, 0.5)),
                scores_3d=torch.cat([task.scores for task in tasks]), labels_3d=labels)
        return samples

    def outputs(self) -> Dict[str, HeadOutput]:
        """See :class:`BEVHead`."""
        counts = [dict(self.channels, heatmap=count) for count in self.num_classes]
        names = self._names() if self.kept is None else self.kept
        outputs = {}
        for full in names:
            task, name = full.removeprefix('task').split('.')
            outputs[full] = HeadOutput((counts[int(task)][name], *self.grid.shape),
                                       f'{", ".join(self.tasks[int(task)])}: {_MEANINGS[name]}')
        return outputs

    def keep_outputs(self, names: Optional[Sequence[str]] = None) -> Tuple[str, ...]:
        """See :class:`BEVHead`; boxes need all outputs, so all are kept by default."""
        self.check_outputs(names)
        self.kept = tuple(name for name in self.outputs() if names is None or name in names)
        self.loss_cls = self.loss_bbox = None
        return self.kept

    def decoding(self) -> Dict[str, dict]:
        """See :class:`BEVHead`; empty if outputs are left out."""
        if set(self.outputs()) != set(self._names()):
            return {}
        tasks = [dict(asdict(decoding), classes=list(decoding.classes))
                 for decoding in self.decodings]
        return {'': dict(kind='center_point', tasks=tasks, norm_bbox=self.norm_bbox, z=self.z,
                         velocity=self.velocity if 'vel' in self.channels else None)}

    # Of samples --------------------------------------------------------------------------------

    def _names(self) -> Tuple[str, ...]:
        return tuple(f'task{t}.{name}' for t in range(len(self.tasks))
                     for name in (*self.channels, 'heatmap'))

    def _table(self, sample: Det3DDataSample, device) -> Tensor:
        """(classes of the data + 1,) int64 channel of each label, on the device."""
        classes = _classes(sample)
        if (classes, device) not in self._tables:
            channels = class_channels(self.tasks, classes)
            self._tables[classes, device] = torch.tensor(channels, device=device)
        return self._tables[classes, device]

    def _labels(self, sample: Det3DDataSample) -> List[List[int]]:
        """The label of each class of each task."""
        classes = _classes(sample)
        class_channels(self.tasks, classes)
        return [[classes.index(name) for name in task] for task in self.tasks]

    def _seconds(self, sample: Det3DDataSample) -> float:
        """By what velocities in m/s are multiplied."""
        if self.velocity == 'speed':
            return 1.0
        seconds = sample.metainfo.get('past_interval')
        if seconds is None or not seconds > 0:
            raise UserError("head.velocity='displacement' needs the seconds since the newest past "
                            f"image, but metainfo['past_interval'] is {seconds}; load past images, "
                            "or set velocity='speed'")
        return float(seconds)


def _classes(sample: Det3DDataSample) -> Tuple[str, ...]:
    if 'classes' not in sample.metainfo:
        raise UserError("the head's labels are those of metainfo['classes'], which the sample does "
                        'not have; add it to the meta_keys of PackBEVInputs')
    return tuple(sample.metainfo['classes'])


def _checked_tasks(tasks) -> Tuple[Tuple[str, ...], ...]:
    for task in tasks:
        if not isinstance(task, (list, tuple)) or not task or not all(
                isinstance(name, str) for name in task):
            raise UserError("tasks: expected a list of class names for each, as in [['car'], "
                            f"['truck', 'bus']], got {task!r}")
    names = [name for task in tasks for name in task]
    if len(set(names)) != len(names) or not names:
        raise UserError(f'tasks: expected each class once and one at least, got {list(tasks)}')
    return tuple(map(tuple, tasks))


def _known(given: Optional[Mapping], known, path: str) -> dict:
    for name in given or {}:
        if name not in known:
            raise UserError(f'{path}.{name}: there is no such setting{did_you_mean(name, known)}')
    return dict(given or {})
