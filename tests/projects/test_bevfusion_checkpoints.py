"""BEVFusion's checkpoints: every entry, both ways, and the whole networks."""
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import CameraRig
from mmdet3d_plugin.geometry.rigid import rigid, yaw_matrix
from tests.helpers import bevfusion_release

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = 'projects/bridgeta/convert_checkpoint.py'
spec = importlib.util.spec_from_file_location('convert_bevfusion', ROOT / SCRIPT)
converter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(converter)

CONSTANTS = dict(camera=4, fusion=4, lidar=0)


@pytest.mark.parametrize('model, entries', [('camera', 357), ('fusion', 465), ('lidar', 224)])
def test_every_entry_is_accounted_for_and_comes_back(model, entries):
    source = bevfusion_release.release(model)
    assert len(source) == entries
    ours, report = converter.convert(dict(state_dict=source, meta={}), model)
    assert len(ours['state_dict']) == entries - CONSTANTS[model]
    assert f'{entries} entries, {entries - CONSTANTS[model]} converted' in report
    back, _ = converter.revert(ours, model)
    assert back['state_dict'].keys() == source.keys()
    assert all(torch.equal(back['state_dict'][name], value) for name, value in source.items())


def test_the_part_that_the_aligned_teacher_shares():
    source = bevfusion_release.release('fusion')
    ours, report = converter.convert(source, 'teacher')
    assert len(ours['state_dict']) == 231 + 126
    assert '104 set aside: fuser, decoder and head' in report
    assert all(name.startswith(('camera_branch.', 'lidar_branch.')) for name in ours['state_dict'])
    teacher = MODELS.build(
        Config.fromfile(
            ROOT / 'configs/bridgeta/bridgeta_teacher_swint-voxel_20e_nuscenes.py').model)
    shapes = {name: value.shape for name, value in teacher.state_dict().items()
              if name.startswith(('camera_branch.', 'lidar_branch.'))}
    assert {name: value.shape for name, value in ours['state_dict'].items()} == shapes


def test_kernels_in_the_layout_of_spconv_2():
    source = bevfusion_release.release('lidar')
    turned = {name: value.movedim(-1, 0).contiguous() if value.dim() == 5 else value
              for name, value in source.items()}
    first, second = (converter.convert(x, 'lidar')[0]['state_dict'] for x in (source, turned))
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_another_model_is_refused():
    with pytest.raises(UserError, match='entries missing, .* is missing'):
        converter.convert(bevfusion_release.release('lidar'), 'camera')


# The whole networks -------------------------------------------------------------------------------

REACH, SCOPE = 12.8, 12.5
SIZE = (64, 128)


def small(name):
    """The released network on a quarter of the ranges."""
    square = dict(x_range=(-REACH, REACH), y_range=(-REACH, REACH))
    grid = dict(x_range=(-SCOPE, SCOPE), y_range=(-SCOPE, SCOPE), resolution=0.5, rows='+x',
                cols='+y')
    config = Config.fromfile(converter.CONFIGS[name]).model
    config.grid = grid
    config.head.update(grid=grid, source=dict(square, resolution=0.8))
    if name != 'lidar':
        config.camera_branch.view_transform.update(square)
    if name != 'camera':
        config.lidar_branch.point_range = (-REACH, -REACH, -5, REACH, REACH, 3)
    return MODELS.build(config).eval()


def cameras():
    """Two cameras with augmented images, in an augmented scene."""
    torch.manual_seed(5)
    ahead = rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]]) @ rigid(translation=(-0.5, 0.1, -0.3))
    cos, sin = math.cos(0.05), math.sin(0.05)
    image_aug = np.array([[-0.5 * cos, 0.5 * sin, 120], [0.5 * sin, 0.5 * cos, -12], [0, 0, 1]])
    bev_aug = np.diag([1, -1, 1, 1.0]) @ np.diag([1.05, 1.05, 1.05, 1]) @ rigid(
        translation=(0.3, -0.2, 0.1)) @ yaw_matrix(0.4)
    matrix = np.array([[120.0, 0, 118], [0, 122, 70], [0, 0, 1]])
    views = [dict(name=str(n), lens='pinhole', lidar2cam=ahead @ yaw_matrix(1.4 * n),
                  cam2img=matrix, height=SIZE[0], width=SIZE[1], img_aug=image_aug)
             for n in range(2)]
    return views, bev_aug, matrix, image_aug


def cloud():
    torch.manual_seed(6)
    points = torch.randn(3000, 5) * torch.tensor([5.0, 5.0, 1.0, 0.3, 0.2])
    return torch.cat([points, points[:200] + 0.01])


@pytest.mark.parametrize('name', ['camera', 'lidar', 'fusion'])
def test_whole_networks_compute_what_the_release_computes(name):
    source = bevfusion_release.release(name)
    index = 'relative_position_index'
    model = small(name)
    source |= {f'encoders.camera.backbone.{k[len("camera_branch.encoder.backbone."):]}': v
               for k, v in model.state_dict().items() if k.endswith(index)}
    model.load_state_dict(converter.convert(source, name)[0]['state_dict'])
    release = bevfusion_release.Release(source, REACH, SCOPE)
    views, bev_aug, matrix, image_aug = cameras()
    torch.manual_seed(7)
    images, points = torch.randn(1, 2, 3, *SIZE), cloud()
    inputs = dict(imgs=images, points=[points], rig=CameraRig.from_dicts([views], [bev_aug]))
    maps = []
    with torch.no_grad():
        if name != 'lidar':
            levels = model.camera_branch.encoder.backbone(images[0])  # mmdet's own, as released
            four = torch.eye(4).repeat(2, 1, 1)
            aug, k = four.clone(), four.clone()
            aug[:, :2, :2], aug[:, :2, 3] = (torch.tensor(x) for x in (
                image_aug[:2, :2], image_aug[:2, 2]))
            k[:, :3, :3] = torch.tensor(matrix)
            camera2lidar = torch.tensor(np.linalg.inv([v['lidar2cam'] for v in views])).float()
            maps.append(release.lift(release.neck(levels), SIZE, k, camera2lidar, aug,
                                     torch.tensor(bev_aug).float()))
        if name != 'camera':
            maps.append(release.voxels(points))
        bev = release.fuse(*maps) if len(maps) == 2 else maps[0]
        decoded = release.resnet(bev) if name == 'camera' else release.second(bev)
        expected = release.head(decoded)
        got = model(inputs)['segmentation']
    assert expected.std() > 0.05 and got.shape == (1, 6, 50, 50)
    assert (got - expected).norm() / expected.norm() < 1e-4
