"""Boxes, a detection head, and mmdet3d's head with the same settings."""
import torch
from mmdet3d.models.dense_heads import CenterHead
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from mmdet3d_plugin.errors import build_from
from mmdet3d_plugin.geometry import BEVGrid

TASKS = [['car'], ['truck', 'construction_vehicle'], ['bus', 'trailer'], ['barrier'],
         ['motorcycle', 'bicycle'], ['pedestrian', 'traffic_cone']]
CLASSES = [name for task in TASKS for name in task]
MMDET3D_CLASSES = ['car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle',
                   'motorcycle', 'pedestrian', 'traffic_cone', 'barrier']
GRID = dict(x_range=(-12.8, 12.8), y_range=(-12.8, 12.8), resolution=0.8, rows='+y', cols='+x')
RANGE = [-11.0, -14.0, -10.0, 14.0, 14.0, 10.0]
RADII = [4, 12, 10, 1, 0.85, 0.175]
BEVDET = dict(
    nms_type=['rotate', 'rotate', 'rotate', 'circle', 'rotate', 'rotate'],
    nms_thr=[0.2, 0.2, 0.2, 0.2, 0.2, 0.5],
    scale_factors=[1.0, [0.7, 0.7], [0.4, 0.55], 1.1, [1.0, 1.0], [4.5, 9.0]])


def head(grid=GRID, in_channels=16, tasks=TASKS, **settings):
    torch.manual_seed(0)
    return build_from(MODELS, dict(type='CenterPointHead', in_channels=in_channels, tasks=tasks,
                                   **settings), 'model.head', grid=BEVGrid(**grid))


def mmdet3d_head(in_channels=16, code_weights=(1, ) * 10, voxel=0.1, factor=8, half=12.8, **test):
    """On GRID, by voxels and their factor."""
    cells = round(2 * half / voxel)
    return CenterHead(
        in_channels=in_channels, loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
        tasks=[dict(num_class=len(task), class_names=task) for task in TASKS],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        separate_head=dict(type='SeparateHead', init_bias=-2.19, final_kernel=3),
        bbox_coder=dict(type='CenterPointBBoxCoder', pc_range=[-half, -half], max_num=500,
                        post_center_range=RANGE, score_threshold=0.1, out_size_factor=factor,
                        voxel_size=[voxel, voxel], code_size=9),
        train_cfg=dict(max_objs=500, dense_reg=1, grid_size=[cells, cells, 40],
                       point_cloud_range=[-half, -half, -5, half, half, 3],
                       voxel_size=[voxel, voxel, 0.2], out_size_factor=factor,
                       gaussian_overlap=0.1, min_radius=2, code_weights=list(code_weights)),
        test_cfg=dict(post_center_limit_range=RANGE, max_per_img=500, score_threshold=0.1,
                      out_size_factor=factor, pre_max_size=1000, post_max_size=83, **test))


def random_boxes(count, seed=0, half=12.8, classes=10):
    """(count, 9) boxes whose centres are in a square, and (count,) labels."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 9, generator=generator)
    boxes[:, :2] = (boxes[:, :2] - 0.5) * 2 * half
    boxes[:, 2] = boxes[:, 2] * 4 - 3
    boxes[:, 3:6] = boxes[:, 3:6] * torch.tensor([12.0, 3.0, 3.0]) + 0.3
    boxes[:, 6] = boxes[:, 6] * 8 - 4
    boxes[:, 7:] = boxes[:, 7:] * 20 - 10
    return boxes, torch.randint(0, classes, (count, ), generator=generator)


def instances(boxes, labels):
    return InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=boxes.shape[1]),
                        labels_3d=labels)


def sample(boxes=None, labels=None, classes=CLASSES, **metainfo):
    made = Det3DDataSample(metainfo=dict(classes=list(classes), **metainfo))
    if boxes is not None:
        made.gt_instances_3d = instances(boxes, labels)
    return made


def to_mmdet3d(outs):
    """Our outputs as mmdet3d's heads pass them on; copies."""
    tasks = sorted({name.split('.')[0] for name in outs})
    return tuple([{name.split('.')[1]: out.clone() for name, out in outs.items()
                   if name.startswith(f'{task}.')}] for task in tasks)


def random_outs(made, batch=2, seed=0, peaks=-2.0):
    """Raw outputs with many boxes of plausible sizes above the threshold."""
    generator = torch.Generator().manual_seed(seed)
    outs = {}
    for name, output in made.outputs().items():
        values = torch.randn(batch, *output.shape, generator=generator)
        kind = name.split('.')[1]
        outs[name] = {'heatmap': lambda v: v + peaks, 'reg': torch.sigmoid,
                      'dim': lambda v: v * 0.3 + torch.tensor([1.4, 0.7, 0.5])[:, None, None],
                      }.get(kind, lambda v: v)(values)
    return outs
