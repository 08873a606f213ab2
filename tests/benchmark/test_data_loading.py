"""What the timing of transforms and loaders measures."""
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmdet3d_plugin.benchmark import data_loading
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.errors import UserError



