"""Cost over size: what changes, and the straight line."""
from pathlib import Path

import pytest

from mmdet3d_plugin.benchmark import scale
from mmdet3d_plugin.engine import load_config

ROOT = Path(__file__).resolve().parents[2]
STUDENT = ROOT / 'configs/kd360/kd360_student_effb0_12k_dur360bev.py'


def test_one_size_changes_at_a_time():
    cfg = load_config(STUDENT)
    options = {axis.split()[0]: scale.overrides(cfg, axis, 4) for axis in scale.AXES}
    branch = 'model.camera_branch'
    assert options == dict(
        height={'test_dataloader.dataset.pipeline.0.size': (4, 8)},
        range={'model.grid.x_range': (-4, 4), 'model.grid.y_range': (-4, 4)},
        levels={f'{branch}.view_transform.num_levels': 4,
                f'{branch}.view_transform.z_range': (-6, -1.0),  # levels of 1.25 m, from below
                f'{branch}.view_transform.compressor.in_channels': 4 * 128},
        batch={})
    assert cfg.test_dataloader.dataset.pipeline[0].type.endswith('Panorama')


def test_distance_from_a_straight_line():
    def points(*peaks):
        return [dict(value=n, peak=peak) for n, peak in enumerate(peaks)]

    assert scale.off_line(points(10, 30, 50)) == pytest.approx(0)
    assert scale.off_line(points(10, 12, 18), power=2) == pytest.approx(0)
    assert scale.off_line(points(0, 30, 0)) == pytest.approx(20 / 30)  # the line is flat, at 10
