"""Weights from a URL: out of reach they are an error of one line; from the cache they are read."""
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule, ModuleList
from mmengine.runner import CheckpointLoader
from torch import nn

from mmdet3d_plugin.engine import PluginRunner
from mmdet3d_plugin.errors import UserError

URL = 'http://127.0.0.1:1/resnet-0123.pth'  # a port at which nothing listens


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    return tmp_path / 'hub' / 'checkpoints' / 'resnet-0123.pth'


class Backbone(BaseModule):

    def __init__(self, init_cfg):
        super().__init__(init_cfg)
        self.conv = nn.Linear(1, 1, bias=False)


class Model(BaseModule):

    def __init__(self, backbone):
        super().__init__()
        self.camera = ModuleList([Backbone(backbone['init_cfg'])])


def runner_of(cached):
    backbone = dict(init_cfg=dict(type='Pretrained', checkpoint=URL))
    cfg = Config(dict(model=dict(camera=[backbone], other=dict(init_cfg=None))))
    return PluginRunner(Model(backbone), str(cached.parents[2]), cfg=cfg, default_scope='mmdet3d',
                        experiment_name=cached.parents[2].name)


def test_no_network_names_url_file_and_option(cached):
    with pytest.raises(UserError) as error:
        runner_of(cached)._init_model_weights()
    text = str(error.value)
    assert text.startswith(f'weights {URL}: cannot be downloaded to {cached} (')
    assert text.endswith(': --cfg-options model.camera.0.init_cfg=None')
    assert 'Connection refused' in text and '\n' not in text
    assert not cached.exists() and not list(cached.parent.iterdir())


def test_a_file_in_the_cache_is_used(cached):
    cached.parent.mkdir(parents=True)
    torch.save({'conv.weight': torch.tensor([[7.0]])}, cached)
    runner = runner_of(cached)
    runner._init_model_weights()
    assert runner.model.camera[0].conv.weight.item() == 7.0


class Code:

    def __reduce__(self):
        return os.mkdir, ('code_ran', )


@pytest.mark.parametrize('source', [URL, 'local.pth'])
def test_no_loader_of_mmengine_runs_code(source, cached, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cached.parent.mkdir(parents=True)
    for path in (cached, 'local.pth'):
        torch.save(dict(state_dict=Code()), path)
    with pytest.raises(UserError, match=r'it refers to posix\.mkdir'):
        CheckpointLoader.load_checkpoint(source)
    assert not (tmp_path / 'code_ran').exists()


def test_an_unwritable_cache(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    with pytest.raises(UserError, match='cannot be downloaded to .*Not a directory'):
        CheckpointLoader.load_checkpoint(URL)
