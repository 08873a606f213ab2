"""The BEVFusion family: sizes, parts against their definitions, orientation."""
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.geometry.rigid import rigid, yaw_matrix
from mmdet3d_plugin.models import LSSFPN, BEVMapHead, GeneralizedLSSFPN, VoxelBranch
from mmdet3d_plugin.models.heads.bev_map_head import resampling

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/bridgeta'
GRID = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5, rows='+x', cols='+y')
SOURCE = dict(x_range=(-51.2, 51.2), y_range=(-51.2, 51.2), resolution=0.8)


@lru_cache
def build(name):
    return MODELS.build(Config.fromfile(CONFIGS / f'{name}_20e_nuscenes.py').model)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize('name, parameters, entries', [
    ('bridgeta_student_swint', 49_118_566, 353),
    ('bridgeta_teacher_swint-voxel', 52_054_998, 485),
    ('release/bevfusion_student_swint', 49_118_566, 353),
    ('release/bevfusion_teacher_swint-voxel', 42_105_462, 461),
    ('release/bevfusion_teacher_voxel', 11_994_838, 224)])
def test_sizes_are_those_of_the_release(name, parameters, entries):
    """Entries without the release's four constants of the view transform."""
    model = build(name)
    assert count(model) == parameters and len(model.state_dict()) == entries


def test_sizes_of_the_parts():
    student, teacher = (
        build(f'bridgeta_{name}') for name in ('student_swint', 'teacher_swint-voxel'))
    assert count(student.camera_branch.encoder.backbone) == 27_520_506
    assert count(student.camera_branch.encoder.neck) == 1_591_296
    assert count(student.camera_branch.view_transform) == 224_166
    assert count(student.bev_encoder.backbone) == 17_214_400
    assert count(student.bev_encoder.neck) == 1_385_984 and count(student.head) == 1_182_214
    assert count(teacher.lidar_branch) == 2_694_352 and count(teacher.fuser) == 242_080
    assistant = [teacher.fuser, teacher.bev_encoder, teacher.head]
    assert sum(map(count, assistant)) == 20_024_678
    assert sum(len(part.state_dict()) for part in assistant) == 128


# The head -----------------------------------------------------------------------------------------


def test_resampling_is_bilinear_at_the_cell_centres():
    torch.manual_seed(0)
    source = BEVGrid(**SOURCE, rows='+x', cols='+y')
    rows, cols = resampling(source, BEVGrid(**GRID))
    assert rows.shape == cols.shape == (200, 128)
    assert rows[0, :4].tolist() == pytest.approx([0, 0.6875, 0.3125, 0])  # at 1.3125
    bev = torch.randn(2, 3, 128, 128)
    centres = torch.tensor(np.linspace(-49.75, 49.75, 200) / 51.2, dtype=torch.float32)
    where = torch.stack(torch.meshgrid(centres, centres, indexing='ij')[::-1], -1)
    expected = F.grid_sample(bev, where.expand(2, -1, -1, -1), mode='bilinear',
                             padding_mode='zeros', align_corners=False)
    torch.testing.assert_close((rows @ bev) @ cols.T, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize('rows, cols', [('+x', '+y'), ('-x', '-y'), ('+y', '-x')])
def test_resampling_keeps_the_orientation(rows, cols):
    """A map of x comes out as the map of x of the target's cells."""
    axes = dict(rows=rows, cols=cols)
    source, target = BEVGrid(**SOURCE, **axes), BEVGrid(**{**GRID, **axes})
    by_row, by_col = resampling(source, target)
    for axis in range(2):
        values = by_row.double() @ source.centers_2d()[..., axis] @ by_col.double().T
        torch.testing.assert_close(values, target.centers_2d()[..., axis], rtol=0, atol=1e-4)


def test_resampling_is_zero_beyond_the_source():
    inner = BEVGrid((-10, 10), (-10, 10), 1.0)
    rows, _ = resampling(inner, BEVGrid((-50, 50), (-50, 50), 1.0))
    assert rows.sum(1).tolist() == [0.0] * 40 + [1.0] * 20 + [0.0] * 40


def head(**kwargs):
    torch.manual_seed(0)
    return BEVMapHead(8, ('road', 'line'), GRID, SOURCE, **kwargs)


def test_losses_of_each_class_at_logits_of_zero():
    from mmengine.structures import PixelData
    samples = [Det3DDataSample(gt_bev=PixelData(seg=(torch.rand(2, 200, 200) > 0.5).float()))
               for _ in range(2)]
    losses = head().loss(dict(segmentation=torch.zeros(2, 2, 200, 200)), samples)
    assert set(losses) == {'loss_road', 'loss_line'}
    assert all(float(loss) == pytest.approx(0.25 * np.log(2)) for loss in losses.values())


def test_the_head_refuses_a_map_of_another_size():
    with pytest.raises(UserError, match=r'model.head.source: .*\(128, 128\) cells.*\(64, 64\)'):
        head()((torch.zeros(1, 8, 64, 64), ))


def test_predictions_are_probabilities():
    logits = dict(segmentation=torch.tensor([[[[0.0]], [[100.0]]]]))
    sample, = head().predict(logits, [Det3DDataSample()])
    assert sample.pred_bev.seg.tolist() == [[[0.5]], [[1.0]]]


# Necks --------------------------------------------------------------------------------------------


def test_image_neck_by_its_definition():
    torch.manual_seed(0)
    neck = GeneralizedLSSFPN((4, 6, 8), 5).eval()
    levels = [torch.randn(1, c, 16 >> n, 20 >> n) for n, c in enumerate((4, 6, 8))]
    up = F.interpolate(levels[2], (8, 10), mode='bilinear')
    middle = neck.convs[1](neck.laterals[1](torch.cat([levels[1], up], 1)))
    up = F.interpolate(middle, (16, 20), mode='bilinear')
    expected = neck.convs[0](neck.laterals[0](torch.cat([levels[0], up], 1)))
    torch.testing.assert_close(neck(levels), expected)


def test_bev_neck_doubles_the_first_map():
    neck = LSSFPN((6, 4), 5).eval()
    out = neck((torch.randn(1, 4, 16, 12), torch.randn(1, 9, 8, 6), torch.randn(1, 6, 8, 6)))
    assert out.shape == (1, 5, 32, 24) and (out >= 0).all()


# Points to BEV ------------------------------------------------------------------------------------


class Recorder(torch.nn.Module):
    def forward(self, voxels):
        self.voxels = voxels
        return voxels.dense()


@pytest.mark.parametrize('rows, cols, site', [
    ('+x', '+y', [1, 2, 3]), ('-x', '-y', [8, 7, 3]), ('+y', '+x', [2, 1, 3])])
def test_voxels_follow_the_orientation_of_the_grid(rows, cols, site, monkeypatch):
    monkeypatch.setattr('mmdet3d_plugin.models.lidar.sparse_encoder.build_from',
                        lambda *_: Recorder())
    branch = VoxelBranch(BEVGrid((-5, 5), (-5, 5), 1.0, rows, cols), {}, (1, 1, 1),
                         (-5, -5, -2, 5, 5, 3))
    points = torch.tensor([[-3.5, -2.5, 1.5, 4.0], [-3.1, -2.9, 1.1, 2.0]])
    branch(dict(points=[points, points[:0]]))
    voxels = branch.encoder.voxels
    assert voxels.index.tolist() == [[0, *site]] and voxels.shape == (10, 10, 6)
    torch.testing.assert_close(voxels.features, points.mean(0, keepdim=True))


def test_an_empty_cloud_trains():
    branch = VoxelBranch(
        BEVGrid(), dict(type='SparseVoxelEncoder', in_channels=4, channels=(4, 4), out_channels=4,
                        paddings=(1, ), blocks=1), (1, 1, 1), (-8, -8, -2, 8, 8, 5))
    out = branch.train()(dict(points=[torch.zeros(0, 4)]))
    assert out.shape == (1, 4, 8, 8) and out.eq(0).all()


# Full size ----------------------------------------------------------------------------------------


def six_cameras():
    ahead = rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    aug = [[0.44, 0, 0], [0, 0.44, -140], [0, 0, 1]]
    return [dict(name=str(n), lens='pinhole', lidar2cam=ahead @ yaw_matrix(n * np.pi / 3),
                 cam2img=[[1260, 0, 800], [0, 1260, 450], [0, 0, 1]], height=256, width=704,
                 raw_height=900, raw_width=1600, img_aug=aug) for n in range(6)]


def full_size_frame():
    generator = torch.Generator().manual_seed(0)
    sample = Det3DDataSample(metainfo=dict(cameras=six_cameras()))
    sample.gt_bev = PixelData(seg=(torch.rand(6, 200, 200, generator=generator) > 0.7).float())
    points = torch.randn(60_000, 5, generator=generator) * torch.tensor([15, 15, 1, 0.3, 0.1])
    image = torch.randint(0, 255, (6, 3, 256, 704), generator=generator, dtype=torch.uint8)
    return dict(inputs=dict(img=[image], points=[points]), data_samples=[sample])


@pytest.mark.slow
def test_a_step_of_bridgeta_at_full_size(tmp_path):
    config, teacher = (Config.fromfile(CONFIGS / f'bridgeta_{name}_20e_nuscenes.py')
                       for name in ('distill_swint', 'teacher_swint-voxel'))
    for model in (config.model.student, teacher.model):
        model.camera_branch.encoder.backbone.init_cfg = None
    teacher.dump(tmp_path / 'teacher.py')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(teacher.model).state_dict()), tmp_path / 'teacher.pth')
    config.model.teacher = dict(config=str(tmp_path / 'teacher.py'),
                                checkpoint=str(tmp_path / 'teacher.pth'))
    model = MODELS.build(config.model).train()
    model.init_weights()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    before = {name: value.clone() for name, value in model.named_parameters()}
    logs = model.train_step(full_size_frame(), optimizer)
    assert all(value.isfinite() for value in logs.values())
    assert {'epsilon_features', 'distance_logits', 'loss_assistant_head'} <= set(logs)
    assert [name for name, value in model.named_parameters() if torch.equal(value, before[name])
            ] == []
