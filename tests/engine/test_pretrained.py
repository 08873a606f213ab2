"""Weights from a URL: out of reach they are an error of one line; from the cache they are read."""
import hashlib
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


class Student(BaseModule):

    def __init__(self):
        super().__init__()
        self.conv = nn.Linear(1, 1, bias=False)


class Distilled(BaseModule):

    def __init__(self):
        super().__init__()
        self.student, self.extra = Student(), nn.Linear(1, 1)


@pytest.mark.parametrize('url', [False, True])
def test_a_student_starts_a_distillation_from_a_file_or_a_url(url, cached):
    cached.parent.mkdir(parents=True)
    torch.save({'conv.weight': torch.tensor([[7.0]])}, cached)
    runner = PluginRunner(Distilled(), str(cached.parents[2]), cfg=Config(),
                          default_scope='mmdet3d', experiment_name=str(cached))
    runner.load_checkpoint(URL if url else str(cached))
    assert runner.model.student.conv.weight.item() == 7.0
    torch.save({'conv.weight': torch.ones(2, 1)}, cached)
    with pytest.raises(UserError, match=r'conv.weight is \(2, 1\), expected \(1, 1\)'):
        runner.load_checkpoint(URL if url else str(cached))


@pytest.mark.parametrize('name, message', [
    ('net-{:.8}.pth', ''), ('net-{:.64}.pth', ''), ('net-{:.12}.pt', ''), ('net-20210831.pth', ''),
    ('net-0123.pth', ''), ('net-finetune.pth', ''), ('net_00000000.pth', ''),
    ('net-00000000.pth', 'its name says 00000000; delete it, and it is downloaded again'),
    ('net-191a3822.pth', 'its SHA-256 begins with {:.8}, its name says 191a3822; delete it')])
def test_the_hash_in_a_name_is_compared(name, message, cached):
    cached.parent.mkdir(parents=True)
    torch.save({'conv.weight': torch.tensor([[7.0]])}, cached)
    digest = hashlib.sha256(cached.read_bytes()).hexdigest()
    file = cached.rename(cached.with_name(name.format(digest)))
    source = f'http://127.0.0.1:1/{file.name}'
    if not message:
        assert CheckpointLoader.load_checkpoint(source)['conv.weight'].item() == 7.0
        return
    with pytest.raises(UserError, match=f'^weights {source}: {file} .*{message.format(digest)}'):
        CheckpointLoader.load_checkpoint(source)


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
