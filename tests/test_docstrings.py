"""The examples in docstrings run and give what they say."""
import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
MODULES = ['.'.join(path.relative_to(ROOT).with_suffix('').parts)
           for package in ('mmdet3d_plugin', 'data_converter')
           for path in sorted((ROOT / package).rglob('*.py')) if '>>> ' in path.read_text()]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs=dict(np=np, torch=torch),
                             optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed
