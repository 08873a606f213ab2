"""BEVDepth and BEVDepth4D at full size: entries and parameters of the releases."""
from pathlib import Path

import pytest
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
