"""Info files and checkpoints damaged at random: read as they were, or an error of one line."""
import copy
import os
import pickle
import random
import signal
import time

import numpy as np
import pytest
import torch

from mmdet3d_plugin.checkpoints import read_checkpoint, save_checkpoint
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.structures import load_infos, save_infos

SEED = os.environ.get('FUZZ_SEED', '13')
SECONDS = pytest.mark.parametrize('seconds', [
    2, pytest.param(120, marks=pytest.mark.slow)])
VALUES = (None, True, -1, 0, 1, 2.5, 1e300, float('nan'), float('inf'), '', 'x', '\0', '1', b'x',
          [], {}, (), [[]], [1, [2]], {'x': 1}, 1 << 20, {1, 2}, 10**10, 10**400, -10**400, 1 << 31,
          1 << 70, 5e-324, 1 + 2j, np.float32(2.5), np.float64('nan'), np.int64(1), np.int8(-1),
          np.uint64((1 << 64) - 1), np.bool_(True), np.str_('x'), np.float16('inf'), np.eye(4),
          np.eye(4).astype('>f4'), np.full((4, 4), np.nan), np.zeros((0, 7)), np.array(3.0),
          np.array(['x']), np.arange(6), [np.float64(1)] * 7, [float('nan')] * 6, [10**400] * 7,
          [[1 << 70] * 4] * 4)


@pytest.fixture
def rounds():
    """Random generators of the rounds for some seconds; one round takes 10 at most."""
    def too_long(*_):
        raise TimeoutError('more than 10 seconds')

    def generate(seconds):
        number, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            signal.alarm(10)
            yield number, random.Random(f'{SEED} {number}')
            number += 1
        assert number > 10

    old = signal.signal(signal.SIGALRM, too_long)
    yield generate
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def damaged(rng, content):
    """Bytes with bits flipped, replaced, removed, repeated, zeroed or moved; or cut."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, length = rng.randrange(len(content)), rng.choice((1, 1, 4, 64, 4096))
        part = content[at:at + length]
        content[at:at + length] = rng.choice((
            bytes([part[0] ^ 1 << rng.randrange(8)]) + part[1:], rng.randbytes(len(part)),
            bytes(len(part)), b'\xff' * len(part), part + part, b''))
        if len(content) < 2:
            break
    return bytes(content[:rng.randrange(len(content) + 1)] if rng.random() < 0.1 else content)


def refused(read, path, story):
    """Whether reading is a UserError of one line; any other error fails."""
    try:
        read(str(path))
    except UserError as error:
        assert str(error).startswith((str(path), f'checkpoint {path}')), error
        assert '\n' not in str(error) and len(str(error)) < 1000
        return True
    except Exception as error:
        pytest.fail(f'FUZZ_SEED={SEED}, {story}: {type(error).__name__}: {error}')
    return False


@pytest.fixture(scope='module')
def infos():
    """Two frames that have all that the schema knows."""
    pose = np.eye(4).tolist()
    camera = dict(img_path='a.png', height=20, width=40, lidar2cam=pose)
    images = dict(
        PANO=dict(camera, lens='equirect', source_lens='dual_fisheye', aperture_deg=190.0),
        WIDE=dict(camera, lens='equirect', fov_up=0.5, fov_down=-0.5),
        FRONT=dict(camera, lens='pinhole', cam2img=[[9.0, 0, 20], [0, 9.0, 10], [0, 0, 1]]),
        FISHEYE=dict(camera, lens='mei', theta_max_deg=100.0, mei=dict(
            xi=1.5, k1=0.01, k2=0.0, p1=0.0, p2=0.0, gamma1=9.0, gamma2=9.0, u0=20.0, v0=10.0)))
    frames = [dict(
        sample_idx=n, token=f't{n}', scene_token='s', frame_id=str(n), timestamp=0.5 * n,
        ego2global=pose, images=images, image_sweeps=[dict(timestamp=0.1, images=images)],
        lidar_points=dict(lidar_path='a.bin', num_pts_feats=4, feature_names=list('xyzi'),
                          lidar2ego=pose, motion=[0.0] * 6),
        lidar_sweeps=[dict(lidar_points=dict(lidar_path='b.bin', lidar2sensor=pose))],
        instances=[dict(bbox_3d=[1.0, 2, 3, 4, 2, 1.5, 0.1], bbox_label_3d=n) for n in (0, 1, -1)])
        for n in range(2)]
    return dict(data_list=frames, metainfo=dict(
        dataset='d', version='v', info_version='1', split='train',
        categories=dict(car=0, bus=1, other=-1), lidar_image=dict(
            projection='staggered', height=3, width=9, pixel_shift_by_row=[0, 1, 2], fov_up=0.3,
            fov_down=-0.3)))


@SECONDS
def test_bytes_of_info_files(seconds, infos, rounds, tmp_path):
    path, count = tmp_path / 'infos.pkl', 0
    save_infos(infos, str(path))
    whole = [path.read_bytes(), *(pickle.dumps(infos, n) for n in (0, 2, 4, 5))]
    for number, rng in rounds(seconds):
        path.write_bytes(damaged(rng, rng.choice(whole)))
        count += refused(load_infos, path, f'round {number}')
    assert count > 5


def places(value, path=()):
    """Paths of everything in nested dicts and lists."""
    yield path
    for key, item in (value.items() if isinstance(value, dict) else
                      enumerate(value) if isinstance(value, list) else ()):
        yield from places(item, (*path, key))


@SECONDS
def test_values_of_info_files(seconds, infos, rounds, tmp_path):
    """Any value in any place, or none."""
    path, paths, count = tmp_path / 'infos.pkl', list(places(infos))[1:], 0
    for number, rng in rounds(seconds):
        changed = copy.deepcopy(infos)
        *parents, last = place = rng.choice(paths)
        parent = changed
        for key in parents:
            parent = parent[key]
        value = rng.choice(VALUES)
        if rng.random() < 0.2:
            del parent[last]
        else:
            parent[last] = value
        path.write_bytes(pickle.dumps(changed, 4))
        count += refused(load_infos, path, f'round {number}: {place} = {value!r}')
    assert count > 5


@SECONDS
def test_bytes_of_checkpoints(seconds, rounds, tmp_path):
    """Weights are equal to the bit, or the file is refused."""
    path, count, weights = tmp_path / 'iter_9.pth', 0, torch.linspace(1, 2, 2000)
    state = {'a.weight': weights, 'a.bias': torch.arange(3.0),
             'a.num_batches_tracked': torch.tensor(7)}
    save_checkpoint(dict(state_dict=state, optimizer=dict(state={0: dict(step=torch.tensor(3.0))}),
                         meta=dict(cfg='a = 1', iter=9)), path)
    whole = path.read_bytes()
    for number, rng in rounds(seconds):
        path.write_bytes(damaged(rng, whole))
        if refused(read_checkpoint, path, f'round {number}'):
            count += 1
        else:
            content = read_checkpoint(path)
            assert content['meta'] == dict(cfg='a = 1', iter=9), number
            assert content['optimizer']['state'][0]['step'] == 3, number
            assert content['state_dict'].keys() == state.keys()
            assert all(torch.equal(content['state_dict'][key], state[key]) for key in state), number
    assert count > 5
