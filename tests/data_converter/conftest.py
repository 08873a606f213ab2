"""Raw data to be damaged."""
import shutil

import pytest

from tests.helpers import layouts


@pytest.fixture(scope='session')
def raw(tmp_path_factory):
    """layout -> folder with its raw files; written once, not to be changed."""
    for module in ('trimesh', 'embreex', 'nuscenes'):
        pytest.importorskip(module)
    made = {}

    def folder(layout):
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp('raw') / layout
            layouts.write(layout, made[layout])
        return made[layout]

    return folder


@pytest.fixture
def spoilable(raw, tmp_path):
    """layout -> folder of raw files of one's own, to be damaged."""
    return lambda layout: shutil.copytree(raw(layout), tmp_path / layout)
