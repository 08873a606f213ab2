"""Checkpoint files: atomic, plain, safe to read."""
import copy
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
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


@pytest.mark.parametrize('damage', ['bit', 'page'])
def test_damage_is_noticed_wherever_it_is(damage, tmp_path):
    """A file with a flipped bit or a zeroed page is refused, or its content is unchanged."""
    path, weights = tmp_path / 'x.pth', torch.arange(5000.) + 1
    save_checkpoint(dict(state_dict=dict(a=weights), iter=3), path)
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[at:at + 4096] = (bytes(len(damaged[at:at + 4096])) if damage == 'page' else
                                 bytes([whole[at] ^ 64]) + whole[at + 1:at + 4096])
        path.write_bytes(damaged)
        try:
            loaded = read_checkpoint(path)
            assert torch.equal(loaded['state_dict']['a'], weights) and loaded['iter'] == 3
        except UserError:
            refused += 1
    assert refused > 200  # of 223; names and paddings of the archive's parts do not count


def test_damage_in_the_training_state_is_noticed(tmp_path):
    path = tmp_path / 'x.pth'
    save_checkpoint(dict(state_dict=dict(a=torch.zeros(2)), optimizer=torch.full((9, ), 7.5)), path)
    content = path.read_bytes()
    assert content.count(np.float32(7.5).tobytes() * 9) == 1
    path.write_bytes(content.replace(np.float32(7.5).tobytes(), np.float32(7.75).tobytes(), 1))
    assert torch.load(path, weights_only=True)['optimizer'][0] == 7.75
    with pytest.raises(UserError, match='cut short or damaged'):
        read_checkpoint(path)


def test_the_last_whole_checkpoint_before_a_damaged_one_is_named(tmp_path):
    """By training step, whatever the clock says; of the same training alone."""
    for name in ('iter_9', 'iter_20', 'iter_100', 'iter_300', 'epoch_7', 'best_iou_iter_100'):
        save_checkpoint(dict(state_dict=dict(a=torch.zeros(2))), tmp_path / f'{name}.pth')
    for seconds, name in enumerate(('iter_300', 'iter_100', 'iter_20', 'iter_9')):
        os.utime(tmp_path / f'{name}.pth', (seconds, seconds))

    def cut(name):
        path = tmp_path / f'{name}.pth'
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(UserError) as caught:
            read_checkpoint(path)
        return str(caught.value).partition('; ')[2]

    def named(name):
        return f'go on from {tmp_path / name}.pth, the last whole one before it'

    assert cut('best_iou_iter_100') == named('iter_100')
    assert cut('iter_100') == named('iter_20')
    assert cut('iter_20') == named('iter_9')
    assert cut('iter_300') == named('iter_9')
    assert cut('iter_9') == 'copy or train it again'
    assert cut('epoch_7') == 'copy or train it again'


@pytest.mark.parametrize('value, got', [
    (torch.tensor([1.0, float('nan'), 2.0]), 'NaN or infinity in 1 of 3'),
    (torch.tensor([float('inf'), -float('inf')]), 'NaN or infinity in 2 of 2'),
    (torch.tensor([float('nan')], dtype=torch.bfloat16), 'NaN or infinity in 1 of 1'),
    (torch.tensor([1 + 2j]), 'a tensor of torch.complex64, torch.strided, on cpu'),
    (torch.tensor([1, 2]), 'torch.int64'),
    (torch.eye(2).to_sparse(), 'a tensor of torch.float32, torch.sparse_coo, on cpu'),
    (torch.zeros(1).expand(1 << 40), '(1099511627776,) numbers in 4 bytes'),
])
@pytest.mark.parametrize('part', ['state_dict', 'ema_state_dict'])
def test_weights_that_no_model_has(part, value, got, tmp_path):
    content = dict(state_dict={'head.bias': torch.zeros(2)})
    content[part] = {'head.weight': value}
    torch.save(content, tmp_path / 'iter_2.pth')
    save_checkpoint(dict(state_dict={}), tmp_path / 'iter_1.pth')
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path / 'iter_2.pth')
    assert str(caught.value) == (
        f'checkpoint {tmp_path}/iter_2.pth: head.weight: expected finite weights, got {got}; go on '
        f'from {tmp_path}/iter_1.pth, the last whole one before it')


def test_counters_are_integers_and_half_precision_is_not_damage(tmp_path):
    state = dict(nn.BatchNorm1d(2).half().state_dict(), none=torch.zeros(0, 3))
    save_checkpoint(dict(state_dict=state), tmp_path / 'x.pth')
    loaded = read_checkpoint(tmp_path / 'x.pth')['state_dict']
    assert loaded['num_batches_tracked'] == 0 and loaded['weight'].tolist() == [1, 1]


def test_integers_in_place_of_floats(tmp_path):
    """Names that do not tell: the model does, strictly loaded or as the start of a training."""
    class Scaled(nn.Module):

        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(2))

    torch.save(dict(state_dict=dict(gain=torch.tensor([3, 4]))), tmp_path / 'x.pth')
    message = r'gain is of torch.int64, expected torch.float32'
    with pytest.raises(UserError, match=message):
        load_weights(Scaled(), tmp_path / 'x.pth')
    runner = PluginRunner(Scaled(), str(tmp_path), default_scope='mmdet3d',
                          experiment_name='integers')
    with pytest.raises(UserError, match=message):
        runner.load_checkpoint(str(tmp_path / 'x.pth'))
    assert runner.model.gain.tolist() == [1, 1]


@pytest.mark.parametrize('content', [[1], dict(state_dict=[1]),
                                     dict(state_dict={}, ema_state_dict=3)])
def test_content_of_another_form(content, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(UserError, match='expected a dict with weights'):
        read_checkpoint(tmp_path / 'x.pth')


def test_lists_that_are_shared_or_hold_themselves(tmp_path):
    """1 KB that would be 10 ** 40 items; each list is read once."""
    bomb, ring = [], []
    for _ in range(40):
        bomb = [bomb] * 10
    ring.append((ring, ))
    torch.save(dict(state_dict={}, bomb=bomb, ring=ring), tmp_path / 'x.pth')
    loaded = read_checkpoint(tmp_path / 'x.pth')
    assert loaded['bomb'][0] is loaded['bomb'][9] and loaded['ring'][0][0] is loaded['ring']


def test_compressed_archives_are_refused(tmp_path):
    """They may be a thousand times larger than their file; ``torch.save`` writes none."""
    save_checkpoint(dict(state_dict=dict(a=torch.zeros(1000))), tmp_path / 'x.pth')
    with zipfile.ZipFile(tmp_path / 'x.pth') as old, zipfile.ZipFile(
            tmp_path / 'y.pth', 'w', zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match='cut short or damaged'):
        read_checkpoint(tmp_path / 'y.pth')


def test_a_part_that_became_a_folder_is_damage(tmp_path):
    """One bit of the archive's directory, and torch leaves a weight as the memory was."""
    path = tmp_path / 'x.pth'
    save_checkpoint(dict(state_dict=dict(a=torch.full((3, ), 2.0))), path)
    content = bytearray(path.read_bytes())
    at = content.rindex(b'archive/data/0') - 8  # external attributes, in the central directory
    assert content[at] == 0
    content[at] = 0x10
    path.write_bytes(content)
    assert zipfile.ZipFile(path).testzip() is None
    with pytest.raises(UserError, match='cut short or damaged'):
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
