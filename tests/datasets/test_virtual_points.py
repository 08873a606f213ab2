"""MVP's virtual points: files, loader, toytown's, and the original files without running code."""
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS
from mmdet3d.structures import LiDARPoints

from data_converter.toytown.virtual_points import virtual_points
from data_converter.virtual_points import convert
from mmdet3d_plugin.datasets.transforms import LoadVirtualPoints
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.errors import FrameError, UserError
from mmdet3d_plugin.geometry import rigid
from mmdet3d_plugin.plain_pickle import load_objects
from mmdet3d_plugin.structures import read_virtual_points, virtual_path
from mmdet3d_plugin.structures.virtual_points import CLASSES

PAINTED = np.arange(30, dtype=np.float32).reshape(2, 15)
VIRTUAL = 100 + np.arange(14, dtype=np.float32).reshape(1, 14)
MOVED = np.array([[1, 0, 0, 10], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.]])


def scan(folder, name, ring=7, virtual=True):
    """A scan of one point at (3, 4, 5) with the intensity 6, and its virtual points."""
    path = folder / 'LIDAR_TOP' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.array([3, 4, 5, 6, ring], '<f4').tofile(path)
    if virtual:
        target = virtual_path(path)
        target.parent.mkdir(exist_ok=True)
        np.savez(target, real_points=PAINTED, virtual_points=VIRTUAL)
    return dict(lidar_path=str(path), num_pts_feats=5)


def frame(folder, **sweeps):
    sweeps = [dict(timestamp=9.5, lidar_points=dict(
        scan(folder / 'sweeps', f'{name}.bin', virtual=virtual), scan2lidar=MOVED))
        for name, virtual in sweeps.items()]
    return dict(points=LiDARPoints(torch.tensor([[3., 4, 5, 6]]), points_dim=4), timestamp=10.0,
                lidar_points=scan(folder / 'samples', 'key.bin'), lidar_sweeps=sweeps)


@pytest.mark.parametrize('ring', [False, True])
def test_the_records_are_those_of_the_table(ring, tmp_path):
    loader = LoadVirtualPoints(count=9, ring_in_sweeps=ring)
    out = loader(frame(tmp_path, a=True))['points'].tensor
    assert out.shape == (8, 17) and out.dtype == torch.float32
    ones = [1.0] * 10
    key, sweep = [3, 4, 5, 6, *ones, 1, 1, 0], [13, 4, 5, 6, *ones, 1, 1, 0.5]
    if ring:
        sweep[4] = 7
    assert out[0].tolist() == key and out[4].tolist() == sweep
    assert out[1:3].tolist() == [[*row, 0, 0] for row in PAINTED.tolist()]
    values = VIRTUAL[0].tolist()
    assert out[3].tolist() == [*values[:3], -1, *values[3:], -1, 0]
    moved = [values[0] + 10, *values[1:3]]
    assert out[7].tolist() == [*moved, -1, *values[3:], -1, 0.5]
    assert loader.missing == 0


def test_sweeps_without_file_are_left_out_and_counted(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr('mmdet3d_plugin.datasets.transforms.sweeps.print_log',
                        lambda text, *_: warned.append(text))
    loader = LoadVirtualPoints(count=9)
    out = loader(frame(tmp_path, a=False, b=True, c=False))['points'].tensor
    assert out[:, 16].tolist() == [0] * 4 + [0.5] * 4 and loader.missing == 2
    assert len(warned) == 1 and 'sweeps/LIDAR_TOP_VIRTUAL/a.bin.npz: no virtual' in warned[0]
    results = frame(tmp_path / 'other')
    virtual_path(results['lidar_points']['lidar_path']).unlink()
    assert loader(results)['points'].tensor.tolist() == [[3, 4, 5, 6, *[1.0] * 12, 0]]
    assert loader.missing == 3 and len(warned) == 1
    results = dict(frame(tmp_path), points=LiDARPoints(torch.zeros(1, 3), points_dim=3))
    with pytest.raises(UserError, match='the points have 3 values, expected x, y, z, intensity'):
        loader(results)


# Files --------------------------------------------------------------------------------------------


def original(path, content, version=None):
    """A file as MVP writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'wb') as file:
        if version is None:
            np.save(file, content, allow_pickle=True)
        else:
            array = np.empty((), object)
            array[()] = content
            np.lib.format.write_array(file, array, version)
    return path


@pytest.mark.parametrize('version', [None, (1, 0), (2, 0)])
def test_original_files_are_read_and_converted(version, tmp_path):
    name = 'samples/LIDAR_TOP_VIRTUAL/a.pcd.bin.pkl.npy'
    content = dict(real_points=PAINTED.astype(np.float64), virtual_points=VIRTUAL, more=[1, 'x'])
    original(tmp_path / name, content, version)
    place = tmp_path / 'samples' / 'LIDAR_TOP' / 'a.pcd.bin'
    for written in (1, 0):
        found = read_virtual_points(place)
        np.testing.assert_array_equal(found['real_points'], PAINTED)
        np.testing.assert_array_equal(found['virtual_points'], VIRTUAL)
        assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
        assert {type(values) for values in found.values()} == {np.ndarray}
        assert convert(tmp_path) == dict(files=1, written=written)
        (tmp_path / name).write_bytes(b'')                      # the .npz is read from now on
    with pytest.raises(UserError, match='give the data root of nuScenes with the files of MVP'):
        convert(tmp_path / 'samples')


class Evil:

    def __reduce__(self):
        return print, ('it ran',)


class State:
    """Pickled as a call, and a state for what it returns."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def forged(data, shape=(), code='O8'):
    """An array of objects with another state."""
    state = (3, '|', None, None, None, -1, -1, 63)
    objects = State(np.dtype, (code, False, True), state)
    return State(np.core.multiarray._reconstruct, (np.ndarray, (0, ), b'b'),
                 (1, shape, objects, False, data))


HEADER = {'descr': '|O', 'fortran_order': False, 'shape': ()}
GOOD = dict(real_points=PAINTED, virtual_points=VIRTUAL)
HOSTILE = {
    'code': (Evil(), 'refers to (builtins|__builtin__).print'),
    'code in the list': (forged([Evil()]), 'refers to (builtins|__builtin__).print'),
    'bytes as pointers': (forged(b'A' * 8), 'without a list of them'),
    'a tuple': (forged((GOOD, )), 'without a list of them'),
    'two objects': (forged([GOOD, GOOD]), 'too many values'),
    'no object': (forged([]), 'not enough values'),
    'numbers': (PAINTED, 'no array of objects'),
    'scalar of objects': (State(np.core.multiarray.scalar, (
        State(np.dtype, ('O8', False, True)), b'A' * 8)), "no attribute 'dtype'"),
    'record of objects': (forged([GOOD], (), 'V8'), "refers to numpy.dtype\\('V8'\\)"),
    'missing array': (forged([dict(real_points=PAINTED)]), "KeyError: 'virtual_points'"),
    'other columns': (forged([dict(GOOD, real_points=VIRTUAL)]), r'expected \(N, 15\) numbers'),
    'objects within': (forged([dict(GOOD, real_points=forged([1], (1, 15)))]), r'expected \(N, 15'),
    'text': (forged([dict(GOOD, real_points='x')]), r'expected \(N, 15\) numbers, got \(\)'),
    'not finite': (forged([dict(GOOD, real_points=PAINTED * np.nan)]), 'not finite'),
}


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_are_refused(name, protocol, tmp_path, capsys):
    content, message = HOSTILE[name]
    path = tmp_path / 'LIDAR_TOP_VIRTUAL' / 'a.bin.pkl.npy'
    path.parent.mkdir()
    with open(path, 'wb') as file:
        np.lib.format.write_array_header_1_0(file, HEADER)
        pickle.dump(content, file, protocol)
    with pytest.raises(FrameError, match=f'a.bin.pkl.npy: no virtual points.*{message}'):
        read_virtual_points(tmp_path / 'LIDAR_TOP' / 'a.bin')
    assert 'it ran' not in capsys.readouterr().out


def test_arrays_of_objects_are_read_nowhere_else():
    array = np.empty(2, object)
    array[:] = [dict(a=1), (2, )]
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    file.seek(0)
    assert load_objects(file) == [dict(a=1), (2, )]
    file = io.BytesIO()
    np.save(file, PAINTED)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match='no objects, but numbers'):
        load_objects(file)


@pytest.mark.parametrize('damage', ['cut', 'pickled', 'empty'])
def test_damaged_files_name_themselves(damage, tmp_path):
    path = virtual_path(tmp_path / 'LIDAR_TOP' / 'a.bin')
    path.parent.mkdir()
    np.savez(path, **GOOD)
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:300])
    elif damage == 'empty':
        path.write_bytes(b'')
    else:
        file = io.BytesIO()
        np.save(file, np.array([Evil()], object), allow_pickle=True)
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('real_points.npy', file.getvalue())
    with pytest.raises(FrameError, match='a.bin.npz: no virtual points .*; copy or convert it'):
        read_virtual_points(tmp_path / 'LIDAR_TOP' / 'a.bin')


# Toytown ------------------------------------------------------------------------------------------


def test_pixels_of_a_mask_are_as_far_as_the_nearest_point_in_the_image():
    """A camera that looks along z; a mask of 4 x 6 pixels, user 5 right of column 2."""
    matrix = np.array([[2, 0, 2.5], [0, 2, 1.5], [0, 0, 1.]])
    users = np.zeros((4, 6), int)
    users[:, 3:], users[0, 0] = 5, 8
    points = np.array([[0.5, 0, 4, 30, 1], [4, 0, 10, 40, 1], [0, 0, -4, 9, 1], [-1, 0, 4, 9, 1]])
    lidar2cam = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.]])
    found = virtual_points(points, np.array([5, 5, 5, 0]), {5: 'bus'},
                           dict(F=(lidar2cam, matrix)), lambda name: users,
                           np.random.default_rng(0))
    real, added = found['real_points'], found['virtual_points']
    np.testing.assert_array_equal(real[:, :4], points[:2, :4])
    assert real.shape == (2, 15) and added.shape == (12, 14)
    for part in (real[:, 4:], added[:, 3:]):
        assert (part[:, CLASSES.index('bus')] == 1).all() and (part[:, :10].sum(1) == 1).all()
        assert len(set(part[:, 10])) == 1 and 0.5 <= part[0, 10] <= 1
    # points 0 and 1 are at the columns 3.25 and 3.5 of the row 1.5
    assert set(added[:, 2]) == {4.0, 10.0}
    left = added[added[:, 2] == 4]
    np.testing.assert_allclose(left[:, 0], 4 * (3 - 2.5) / 2 - 1, atol=1e-6)    # column 3
    np.testing.assert_allclose(sorted(left[:, 1]), np.array([-3, -1, 1, 3]) * 4 / 4, atol=1e-6)
    blind = virtual_points(points[2:], np.array([5, 0]), {5: 'bus'}, dict(F=(lidar2cam, matrix)),
                           lambda name: users, np.random.default_rng(0))
    assert blind['real_points'].shape == (0, 15) and blind['virtual_points'].shape == (0, 14)


def test_toytowns_points_lie_in_the_boxes_of_their_class(toytown_nuscenes):
    config = load_config('configs/detection/mvp_teacher_pillar_500it_toytown.py', {
        'val_dataloader.dataset.data_root': str(toytown_nuscenes)})
    packed = DATASETS.build(config.val_dataloader.dataset)[1]
    points = packed['inputs']['points'].numpy()
    assert points.shape[1] == 17 and set(points[:, 15]) == {-1.0, 0.0, 1.0}
    now = points[points[:, 16] == 0]
    ann = packed['data_samples'].gt_instances_3d
    boxes = np.c_[ann.bboxes_3d.gravity_center, ann.bboxes_3d.tensor[:, 3:]]
    names = np.array(packed['data_samples'].metainfo['classes'])[ann.labels_3d]
    for kind, least in ((-1, 0.8), (0, 0.95)):
        mine = now[now[:, 15] == kind]
        label = np.array(CLASSES)[mine[:, 4:14].argmax(1)]
        inside = rigid.points_in_boxes(mine, boxes, 0.3) & (names[:, None] == label)
        assert len(mine) > 50 and inside.any(0).mean() > least
