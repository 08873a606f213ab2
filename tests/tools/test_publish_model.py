"""The published file is the student alone and loads safely."""
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

TOOL = Path(__file__).parents[2] / 'tools' / 'publish_model.py'


@pytest.fixture
def training_checkpoint(tmp_path):
    text = ("custom_imports = dict(imports=['mmdet3d_plugin'], allow_failed_imports=False)\n"
            "model = dict(type='Distiller', teacher=dict(config='t.py', checkpoint='t.pth'),\n"
            "             student=dict(type='Student', width=4))\n")
    path = tmp_path / 'epoch_9.pth'
    torch.save(
        dict(
            state_dict={'student.head.weight': torch.arange(6.).view(2, 3),
                        'student.norm.num_batches_tracked': torch.tensor(7),
                        'assistant.weight': torch.ones(2), 'terms.kl.scale': torch.ones(1)},
            optimizer=dict(state={0: torch.ones(2)}),
            ema_state_dict={'module.student.head.weight': torch.ones(2, 3)},
            message_hub=dict(log_scalars=dict(loss=HistoryBuffer([1.0], [1]))),
            meta=dict(cfg=text, epoch=9, iter=90, seed=3, hook_msgs=dict(secret='/home/me'))), path)
    return path


def test_published_file(training_checkpoint, tmp_path, run_command):
    done = run_command(TOOL, training_checkpoint, tmp_path / 'out' / 'kd.pth')
    assert done.returncode == 0, done.stderr
    [path] = (tmp_path / 'out').iterdir()
    assert re.fullmatch(r'kd-[0-9a-f]{8}\.pth', path.name)
    published = torch.load(path, weights_only=True)
    assert set(published) == {'state_dict', 'meta'}
    assert set(published['state_dict']) == {'head.weight', 'norm.num_batches_tracked'}
    assert published['state_dict']['head.weight'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert published['meta']['iter'] == 90 and 'hook_msgs' not in published['meta']
    cfg = Config.fromstring(published['meta']['cfg'], file_format='.py')
    assert cfg.model == dict(type='Student', width=4)


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('publish_model', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_the_hash_names_the_weights(tool):
    state = dict(a=torch.ones(2), b=torch.zeros(1, dtype=torch.long))
    assert tool.fingerprint(state) == tool.fingerprint(dict(reversed(state.items())))
    assert tool.fingerprint(state) != tool.fingerprint({**state, 'a': torch.tensor([1., 1.001])})


def test_errors(tmp_path, run_command):
    done = run_command(TOOL, tmp_path / 'gone.pth', tmp_path / 'x.pth')
    assert done.returncode == 2
    assert 'gone.pth: no such file' in done.stderr
    done = run_command(TOOL, tmp_path / 'gone.pth', tmp_path / 'x.bin')
    assert done.returncode == 2
    assert 'expected a name that ends with .pth' in done.stderr


def test_a_config_is_read_and_not_run(tool):
    cfg = Config.fromfile(TOOL.parents[1] / 'configs/kd360/kd360_distill_r18_500it_toytown.py')
    cfg.odd = {'a b': (1, -2.5), 3: [None, True, dict(c='x')]}
    content = tool.publish(dict(state_dict=dict(a=torch.ones(1)), meta=dict(cfg=cfg.pretty_text)))
    published = Config.fromstring(content['meta']['cfg'], file_format='.py')
    assert published.to_dict() == cfg.to_dict()


@pytest.mark.parametrize('text, reason', [
    ("x = __import__('os').mkdir('ran')\nmodel = dict(type='X')\n", 'line 1: '),
    ("model = dict(type='X', a=open('ran', 'w'))\n", 'line 1: "open('),
    ("import os\nmodel = dict(type='X')\n", 'line 1 is no assignment'),
    ("model = dict([('type', 'X')])\n", 'line 1: '),
    ("model = dict(type='D', student='ran.py')\n", 'which is not in'),
    ('model = dict(', "was never closed"),
])
def test_no_text_of_a_checkpoint_is_run(text, reason, tool, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'ran.py').write_text("open('ran', 'w')\nmodel = dict(type='X')\n")
    content = tool.publish(dict(state_dict={'student.a': torch.ones(1)}, meta=dict(cfg=text)))
    assert not (tmp_path / 'ran').exists()
    assert set(content['state_dict']) == {'a'} and 'cfg' not in content['meta']
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('meta.cfg is left out: ') and reason in line
    assert line.count('meta.cfg') == 1
