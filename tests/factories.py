"""Tiny models and batches that the tests share."""
import copy
import math

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import PixelData

from mmdet3d_plugin.geometry import BEVGrid

GRID = dict(x_range=(-16, 16), y_range=(-16, 16), resolution=1.0, rows='-x', cols='-y')


def camera(height, width, fov):
    return dict(name='p', lens='equirect', lidar2cam=np.eye(4), height=height, width=width,
                fov_up=math.radians(fov), fov_down=-math.radians(fov))


def branch(kind, encoder, **view):
    resnet = dict(type='mmdet.ResNet', depth=18, base_channels=8, num_stages=3, strides=(1, 2, 2),
                  dilations=(1, 1, 1), out_indices=(1, 2), norm_eval=False)
    neck = dict(type='UpsampleConcat', in_channels=(16, 32), mid_channels=16, out_channels=8)
    return dict(type=kind, encoder=dict(type=encoder, backbone=resnet, neck=neck),
                view_transform=dict(
                    type='VoxelPulling', num_levels=4, **view,
                    compressor=dict(type='HeightCompressor', in_channels=32, out_channels=8)))


CAMERA = branch('CameraBranch', 'ImageEncoder', z_range=(-4, 4))
LIDAR = branch('LiDARImageBranch', 'LiDARImageEncoder', z_range=(-2, 2), levels='+z', occupied=True)


def model_config(camera_branch=CAMERA, lidar_branch=None, **extra):
    cfg = dict(type='BEVModel', grid=GRID, camera_branch=camera_branch, lidar_branch=lidar_branch,
               fuser=dict(type='SGFM', channels=8) if camera_branch and lidar_branch else None,
               data_preprocessor=dict(type='BEVDataPreprocessor'),
               bev_encoder=dict(type='BEVUNet', in_channels=8, channels=(8, 8, 8)),
               head=dict(type='BEVSegHead', in_channels=8))
    return copy.deepcopy({**cfg, **extra})


def build(*args, **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(model_config(*args, **kwargs))
    model.init_weights()
    return model


def batch(size=2, lidar=True):
    generator = np.random.default_rng(0)
    samples, images, lidar_images, points = [], [], [], []
    for _ in range(size):
        sample = Det3DDataSample(metainfo=dict(
            cameras=[camera(64, 128, 90)], lidar_camera=camera(16, 64, 22.5), bev_aug=np.eye(4),
            bev_grid=BEVGrid(**GRID).asdict()))
        seg = np.zeros((1, 32, 32), np.float32)
        seg[:, 4:9, 10:14] = 1
        sample.gt_bev = PixelData(seg=torch.tensor(seg), centerness=torch.tensor(seg * 0.7),
                                  offset=torch.zeros(2, 32, 32))
        samples.append(sample)
        images.append(torch.tensor(generator.integers(0, 255, (1, 3, 64, 128)), dtype=torch.uint8))
        lidar_images.append(torch.tensor(generator.random((3, 16, 64)), dtype=torch.float32))
        points.append(torch.tensor(generator.normal(0, 5, (300, 3)), dtype=torch.float32))
    inputs = dict(img=images)
    if lidar:
        inputs.update(lidar_img=lidar_images, points=points)
    return dict(inputs=inputs, data_samples=samples)
