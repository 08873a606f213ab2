"""Raw data to be damaged."""
import shutil

import pytest

from tests.helpers import layouts


@pytest.fixture(scope='session')
def raw(make_once):
    """layout -> folder with its raw files; written once, not to be changed."""
    for module in ('trimesh', 'embreex', 'nuscenes'):
        pytest.importorskip(module)
    return lambda layout: make_once(f'raw_{layout}', lambda folder: layouts.write(layout, folder))


@pytest.fixture
def spoilable(raw, tmp_path):
    """layout -> folder of raw files of one's own, to be damaged."""
    return lambda layout: shutil.copytree(raw(layout), tmp_path / layout)
