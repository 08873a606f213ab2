"""Cost over size: what changes, and the straight line."""
from pathlib import Path

import pytest

from mmdet3d_plugin.benchmark import scale
from mmdet3d_plugin.engine import load_config

ROOT = Path(__file__).resolve().parents[2]
STUDENT = ROOT / 'configs/kd360/kd360_student_effb0_dur360bev.py'



