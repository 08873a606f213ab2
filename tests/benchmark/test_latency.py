"""What a benchmark counts and reads."""
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.benchmark.backends import Eager, build_backend
from mmdet3d_plugin.benchmark.latency import Entry, count_macs, synthetic_frame
from mmdet3d_plugin.benchmark.reports import parse_models
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import read_result
from mmdet3d_plugin.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TOYTOWN = str(ROOT / 'configs/kd360/kd360_{}_r18_toytown{}.py')



