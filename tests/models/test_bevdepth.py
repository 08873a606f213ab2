"""BEVDepth and BEVDepth4D at full size: entries and parameters of the releases."""
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/detection'
BUFFERS = 4  # voxel_size, voxel_coord, voxel_num and frustum of the release are no entries here


def build(name):
    return MODELS.build(Config.fromfile(CONFIGS / f'{name}.py').model)


@pytest.mark.parametrize('name, entries, millions', [
    ('bevdepth_student_r18_24e_nuscenes', 663, 62.58),
    ('bevdepth_student_mobilenetv2_24e_nuscenes', 855, 53.38),
    ('bevdepth_student_r50_24e_nuscenes', 861, 76.39),
    ('bevdepth_student_r101_24e_nuscenes', 1167, 95.38),
    ('bevdepth_student_r50_20e_nuscenes_da', 881, 76.62)])
def test_bevdepth_has_the_entries_and_parameters_of_the_release(name, entries, millions):
    model = build(name)
    state = model.state_dict()
    assert len(state) + BUFFERS == entries
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)
    parts = [key.split('.')[0] for key in state]
    assert parts.count('head') + parts.count('bev_encoder') == 408
    if 'r50' in name:
        assert sum(key.startswith('camera_branch.encoder.backbone.') for key in state) == 318


def test_mobilenet_trains_only_what_its_maps_need():
    backbone = MODELS.build(dict(type='MobileNetV2', out_indices=(1, 2, 4, 6)))
    maps = backbone(torch.randn(2, 3, 32, 64))
    assert [m.shape[1] for m in maps] == [24, 32, 96, 320]
    sum(m.square().sum() for m in maps).backward()
    silent = {name.split('.')[0] for name, p in backbone.named_parameters()
              if p.requires_grad and p.grad is None}
    assert silent == set()
    whole = MODELS.build(dict(type='MobileNetV2', out_indices=(7, )))
    assert all(p.requires_grad for p in whole.parameters())


def test_the_neck_of_bevdet_joins_the_first_map_with_the_deepest():
    """The order of the channels is that of the releases' weights."""
    neck = MODELS.build(dict(type='BEVDetFPN', in_channels=(3, 2), mid_channels=4, out_channels=4))
    weight = neck.fuse[0].conv.weight.data.zero_()
    weight[0, 0, 1, 1] = 1  # the first channel of the joined map
    maps = torch.full((1, 2, 8, 8), 5.0), torch.full((1, 3, 2, 2), 7.0)
    joined = neck.fuse[0].conv(torch.cat([maps[0], torch.full((1, 3, 8, 8), 7.0)], 1))
    seen = []
    neck.fuse[0].conv.register_forward_hook(lambda module, args, out: seen.append(out))
    neck(maps)
    assert torch.equal(seen[0], joined) and seen[0][0, 0].unique().tolist() == [5.0]
