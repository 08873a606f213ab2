"""The plot of cost over size: what changes, and the straight line."""
import json
import sys
from pathlib import Path

import cv2
import pytest

from mmdet3d_plugin.benchmark import scale
from mmdet3d_plugin.engine import load_config
from tools import plot_scale

ROOT = Path(__file__).resolve().parents[2]


def test_one_size_changes_at_a_time():
    cfg = load_config(ROOT / plot_scale.STUDENT)
    options = {axis.split()[0]: scale.overrides(cfg, axis, 4) for axis in scale.AXES}
    branch = 'model.camera_branch'
    assert options == dict(
        height={'test_dataloader.dataset.pipeline.0.size': (4, 8)},
        range={'model.grid.x_range': (-4, 4), 'model.grid.y_range': (-4, 4)},
        levels={f'{branch}.view_transform.num_levels': 4,
                f'{branch}.view_transform.z_range': (-6, -1.0),  # levels of 1.25 m, from below
                f'{branch}.compressor.in_channels': 4 * 128},
        batch={})
    assert cfg.test_dataloader.dataset.pipeline[0].type.endswith('Panorama')


def test_distance_from_a_straight_line():
    def points(*peaks):
        return [dict(value=n, peak=peak) for n, peak in enumerate(peaks)]

    assert scale.off_line(points(10, 30, 50)) == pytest.approx(0)
    assert scale.off_line(points(10, 12, 18), power=2) == pytest.approx(0)
    assert scale.off_line(points(0, 30, 0)) == pytest.approx(20 / 30)  # the line is flat, at 10


def test_plot(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(scale.AXES, 'batch', (1, 3))
    monkeypatch.setattr(sys, 'argv', [
        'plot_scale.py', 'configs/kd360/kd360_student_r18_toytown.py', '--axes', 'batch',
        '--backends', 'eager', '--frames', '1', '--out', str(tmp_path / 'scale.png')])
    plot_scale.main()
    one, three = json.loads((tmp_path / 'scale.json').read_text())['axes']['batch']['eager']
    assert three['gmacs'] == pytest.approx(3 * one['gmacs']) and three['peak'] > one['peak']
    assert cv2.imread(str(tmp_path / 'scale.png')).std() > 5
