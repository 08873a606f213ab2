"""The plot of cost over size."""
import json
import sys
from pathlib import Path

import cv2
import pytest

from mmdet3d_plugin.benchmark import scale
from tools import plot_scale

ROOT = Path(__file__).resolve().parents[2]


def test_plot(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(scale.AXES, 'batch', (1, 3))
    monkeypatch.setattr(sys, 'argv', [
        'plot_scale.py', 'configs/kd360/kd360_student_r18_500it_toytown.py', '--axes', 'batch',
        '--backends', 'eager', '--frames', '1', '--out', str(tmp_path / 'scale.png')])
    plot_scale.main()
    one, three = json.loads((tmp_path / 'scale.json').read_text())['axes']['batch']['eager']
    assert three['gmacs'] == pytest.approx(3 * one['gmacs']) and three['peak'] > one['peak']
    assert cv2.imread(str(tmp_path / 'scale.png')).std() > 5
