"""Checkpoint files: atomic, plain, safe to read."""
import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn

from mmdet3d_plugin.checkpoints import (
    atomic_write,
    from_plain,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    to_plain,
)
from mmdet3d_plugin.engine import PluginRunner
from mmdet3d_plugin.errors import UserError
from tests.factories import CAMERA, LIDAR, build


class Evil:

    def __reduce__(self):
        return os.mkdir, ('evil_was_here', )


def test_plain_content_loads_safely_and_comes_back(tmp_path):
    history = HistoryBuffer([1.5, 2.5, 4.0], [1, 2, 1], max_length=3)
    state = nn.BatchNorm1d(2).state_dict()
    content = dict(
        state_dict=state, scalar=np.float64(0.25), flag=np.bool_(True), count=np.int32(7),
        array=np.arange(6, dtype=np.int64).reshape(2, 3), kept=deque([3, 4]), name=np.str_('x'),
        scheduler=dict(anneal=max, method=history.mean, step=3),
        cfg=ConfigDict(type='A', sizes=(1, 2)), hub=dict(log=OrderedDict(loss=history)))
    save_checkpoint(content, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert loaded['scalar'] == 0.25 and loaded['flag'] is True and loaded['count'] == 7
    assert loaded['array'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded['kept'] == [3, 4] and loaded['name'] == 'x'
    assert loaded['cfg'] == dict(type='A', sizes=(1, 2)) and type(loaded['cfg']) is dict
    assert loaded['scheduler'] == dict(step=3)
    assert loaded['state_dict']._metadata == state._metadata
    back = from_plain(loaded['hub'])['log']['loss']
    assert isinstance(back, HistoryBuffer) and back.max_length == 3
    assert [part.tolist() for part in back.data] == [[1.5, 2.5, 4.0], [1, 2, 1]]


def test_plain_is_idempotent():
    plain = to_plain(dict(log=HistoryBuffer([1.0], [1]), a=np.ones(2), b=[(1, 'x')]))
    again = to_plain(plain)
    assert again['log'].keys() == plain['log'].keys() and again['b'] == [(1, 'x')]
    assert torch.equal(again['a'], plain['a'])


def test_reads_what_mmengine_writes(tmp_path):
    hub = MessageHub.get_instance('reads_what_mmengine_writes')
    hub.update_scalar('train/loss', 3.0)
    hub.update_scalar('train/loss', 1.0)
    hub.update_info('best_score', np.float64(0.5))
    torch.save(dict(state_dict={}, message_hub=hub.state_dict()), tmp_path / 'mm.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'mm.pth', weights_only=True)
    loaded = read_checkpoint(tmp_path / 'mm.pth')['message_hub']
    assert loaded['log_scalars']['train/loss'].data[0].tolist() == [3.0, 1.0]
    assert loaded['runtime_info']['best_score'] == 0.5
    with pytest.raises(pickle.UnpicklingError):  # the permission ended with the call
        torch.load(tmp_path / 'mm.pth', weights_only=True)


def test_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=Evil()), 'evil.pth')
    with pytest.raises(UserError, match='cannot be loaded safely'):
        read_checkpoint('evil.pth')
    assert not (tmp_path / 'evil_was_here').exists()


@pytest.mark.parametrize('content, message', [
    (None, 'no such file'),
    (b'', 'cut short or damaged'),
    (b'text', 'it is no checkpoint'),
])
def test_bad_files_are_user_errors(content, message, tmp_path):
    path = tmp_path / 'x.pth'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_checkpoint(path)


def test_every_cut_is_noticed(tmp_path):
    path = tmp_path / 'x.pth'
    save_checkpoint(dict(state_dict=dict(a=torch.arange(1000.))), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 211):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_checkpoint(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(b'old')
    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write(b'new')
        raise KeyError
    assert path.read_bytes() == b'old'
    with atomic_write(path) as file:
        file.write(b'new')
    assert path.read_bytes() == b'new'
    assert [p.name for p in tmp_path.iterdir()] == ['x.pth']


WRITER = """
import sys
from mmdet3d_plugin.checkpoints import atomic_write
print('ready', flush=True)
n = 0
while True:
    n += 1
    with atomic_write(sys.argv[1]) as file:
        for _ in range(64):
            file.write(bytes([n % 256]) * 4000)
"""


def test_a_kill_while_writing_leaves_a_whole_file(tmp_path):
    path = tmp_path / 'x.bin'
    process = subprocess.Popen([sys.executable, '-c', WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'ready\n'
    seen = set()
    for _ in range(80):  # a reader at any moment sees one whole version
        if path.exists():
            data = path.read_bytes()
            assert len(data) == 64 * 4000 and len(set(data)) == 1
            seen.add(data[0])
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    data = path.read_bytes()
    assert len(data) == 64 * 4000 and len(set(data)) == 1
    assert len(seen) > 1


class Distilled(nn.Module):

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(2, 1)
        self.assistant = nn.Linear(3, 1)


def test_weights_of_a_distiller_and_of_its_student(tmp_path):
    whole = Distilled()
    save_checkpoint(dict(state_dict=whole.state_dict()), tmp_path / 'kd.pth')
    save_checkpoint(dict(state_dict=whole.student.state_dict()), tmp_path / 'student.pth')
    for name in ('kd.pth', 'student.pth'):
        student, distiller = nn.Linear(2, 1), Distilled()
        load_weights(student, tmp_path / name)
        load_weights(distiller, tmp_path / name)
        assert torch.equal(student.weight, whole.student.weight)
        assert torch.equal(distiller.student.weight, whole.student.weight)
    with pytest.raises(UserError, match='0 entries missing, 0 unexpected, 1 of another shape'):
        load_weights(nn.Linear(3, 1), tmp_path / 'student.pth')
    with pytest.raises(UserError, match=r'not of this model \(BatchNorm1d\)'):
        load_weights(nn.BatchNorm1d(2), tmp_path / 'student.pth')


def test_entries_that_were_renamed_load(tmp_path):
    """An earlier checkpoint, loaded for inference and as the start of a training."""
    lidar = copy.deepcopy(LIDAR)
    lidar['encoder']['in_channels'] = 2
    model = build(CAMERA, lidar)
    old = {key.replace('view_transform.compressor', 'compressor').replace('input_proj', 'adapter'):
           value for key, value in model.state_dict().items()}
    assert {'camera_branch.compressor.conv.weight', 'lidar_branch.encoder.adapter.weight'} <= set(
        old)
    torch.save(dict(state_dict=old), tmp_path / 'old.pth')
    again = build(CAMERA, lidar)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    load_weights(again, tmp_path / 'old.pth')
    assert all(torch.equal(value, again.state_dict()[key])
               for key, value in model.state_dict().items())
    runner = PluginRunner(build(CAMERA, lidar), str(tmp_path), default_scope='mmdet3d',
                          experiment_name='renamed')
    runner.load_checkpoint(str(tmp_path / 'old.pth'))
    assert all(torch.equal(value, runner.model.state_dict()[key])
               for key, value in model.state_dict().items())
