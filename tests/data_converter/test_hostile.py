"""The table of docs/datasets.md: what each defect of the raw files comes to, in each layout."""
import errno
import json
import os
import pickle
import random
import resource
import signal
import threading
import time

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader
from tqdm import tqdm

from data_converter import common, dur360bev, kitti360, nuscenes
from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.engine.cli import message_of
from mmdet3d_plugin.errors import FrameError, UserError
from mmdet3d_plugin.structures import load_infos, save_infos
from tests.helpers import layouts
from tests.helpers.layouts import LAYOUTS

D, K, N = LAYOUTS
TRAIN, MINI = '2013_05_28_drive_0002_sync', 'v1.0-mini'


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet3d')


@pytest.fixture(scope='module')
def whole(raw, make_once):
    """layout -> folder of the info files of its undamaged set."""
    return lambda layout: make_once(f'infos_{layout}', lambda folder: layouts.convert(
        layout, raw(layout), folder, check=True))


@pytest.fixture
def files(whole):
    """(layout, root, split) -> scan and image of the last frame of a split."""
    def paths(layout, root, split):
        frame = load_infos(str(layouts.infos(layout, whole(layout), split)))['data_list'][-1]
        name, camera = next(iter(frame['images'].items()))
        scan, image = frame['lidar_points']['lidar_path'], camera['img_path']
        if layout == N:
            scan, image = f'samples/LIDAR_TOP/{scan}', f'samples/{name}/{image}'
        return root / scan, root / image
    return paths


# Files of one frame -----------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:-37])


def random_bytes(path):
    data = path.read_bytes()
    path.write_bytes(data[:40] + b'\x11' * (len(data) - 104) + data[-64:])


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def one_nan(path):
    values = np.fromfile(path, '<f4')
    values[8] = np.nan
    values.tofile(path)


def far_away(path):
    values = np.fromfile(path, '<f4')
    values[1] = 3e38
    values.tofile(path)


def empty(path):
    path.write_bytes(b'')


FILES = [  # which file, damage, whether the converter sees it without --check, message
    ('image', cut, LAYOUTS, 'not a complete PNG or JPEG file'),
    ('image', random_bytes, (), 'unreadable image'),
    ('image', empty, LAYOUTS, r'not a complete .* \(0 bytes\)|empty file'),
    ('image', os.unlink, LAYOUTS, 'cannot read|no such'),
    ('scan', cut, LAYOUTS, r'\d+ bytes, expected'),
    ('scan', zeros, (K, ), 'a scan without any return'),
    ('scan', one_nan, (K, ), '1 values are not finite'),
    ('scan', far_away, (K, ), '1 values are .* beyond 1e12'),
    ('scan', empty, LAYOUTS, r'expected (.* )?points|empty file|without any return'),
    ('scan', os.unlink, LAYOUTS, 'missing LiDAR scan|no such|no bytes|cannot read'),
]
NAMES = [f'{damage.__name__} {kind}' for kind, damage, _, _ in FILES]


def summary_of(layout, out):
    module = dict(zip(LAYOUTS, (dur360bev, kitti360, nuscenes)))[layout]
    return module.report(load_infos(str(layouts.infos(layout, out))))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('kind, damage, seen, message', FILES, ids=NAMES)
def test_a_bad_file_of_a_frame(layout, kind, damage, seen, message, spoilable, whole, files,
                               tmp_path, capfd):
    root, out = spoilable(layout), tmp_path / 'out'
    paths = dict(zip(('scan', 'image'), files(layout, root, 'train')))
    damage(paths[kind])
    if layout == D and kind == 'image' and damage is os.unlink:
        with pytest.raises(UserError, match='is the download complete'):
            layouts.convert(layout, root, out)
        return                              # the split file counts the images of the folder
    listed = layout == K and damage is os.unlink  # the list of the folder's files tells it
    check = layout not in seen
    summary = layouts.convert(layout, root, out, check=check)
    report = summary_of(layout, out)
    assert report['frames'] == 2
    if listed:
        missing = dict(scan='no scan', image='no image_02')[kind]
        assert summary['skipped'][missing] == 1
    else:
        assert report['skipped'] == {kind: 1}
        assert f"'skipped': {{'{kind}': 1}}" in summary['train']
        assert f'frame left out (1 so far): {paths[kind]}' in capfd.readouterr().err

    # In training the frame is replaced by the next one; an evaluation stops.
    data = layouts.dataset(layout, root, whole(layout))
    assert data[2]['data_samples'].token == data[0]['data_samples'].token
    with pytest.raises(FrameError, match=message) as error:
        layouts.dataset(layout, root, whole(layout), test_mode=True)[2]
    assert str(paths[kind]) in str(error.value) and '\n' not in str(error.value)

    # A frame that is held out is never left out.
    if not listed:
        paths = dict(zip(('scan', 'image'), files(layout, root, 'val')))
        damage(paths[kind])
        with pytest.raises(FrameError, match=message) as error:
            layouts.convert(layout, root, tmp_path / 'strict', check=check)
        assert str(paths[kind]) in str(error.value)
        assert not layouts.infos(layout, tmp_path / 'strict', 'val').exists()


def test_the_seed_of_a_frame_holds_for_its_replacement(spoilable, whole, files):
    root = spoilable(D)
    data = layouts.dataset(D, root, whole(D))
    data.pipeline.transforms.insert(0, lambda results: dict(results, draw=np.random.rand()))  # noqa: NPY002
    data.pipeline.transforms[-1].meta_keys += ('draw', )

    class Draw(int):
        seed = 5

    expected = data[Draw(0)]['data_samples'].draw
    cut(files(D, root, 'train')[0])
    assert data[Draw(2)]['data_samples'].draw == expected


def test_a_worker_of_the_loader_names_the_file_in_one_line(spoilable, whole, files):
    root = spoilable(D)
    scan, _ = files(D, root, 'val')
    cut(scan)
    loader = DataLoader(layouts.dataset(D, root, whole(D), 'val'), num_workers=1, batch_size=None)
    with pytest.raises(FrameError) as error:
        list(loader)
    message = message_of(error.value)
    assert message.startswith(f'{scan}: ') and message.endswith('the file is cut, copy it again')


def test_warnings_are_counted_and_bounded(spoilable, whole, monkeypatch):
    root, said = spoilable(D), []
    monkeypatch.setattr('mmdet3d_plugin.datasets.bev_dataset.print_log',
                        lambda message, *_: said.append(message))
    scans = sorted((root / 'ouster_points' / 'data').iterdir())
    cut(scans[0])
    data = layouts.dataset(D, root, whole(D), max_bad_frames=1)
    for _ in range(3):
        assert data[0]['data_samples'].sample_idx == 1
    assert len(said) == 1 and '(1 bad files so far in this process)' in said[0]
    assert f'{scans[0]}: ' in said[0]
    cut(scans[1])
    with pytest.raises(UserError, match='2 frames in a row cannot be loaded; check data_root') as e:
        data[0]
    assert not isinstance(e.value, FrameError)
    cut(scans[2])
    with pytest.raises(UserError, match='3 frames in a row cannot be loaded'):
        layouts.dataset(D, root, whole(D))[0]       # all frames there are


# Labels, poses, calibration, tables -------------------------------------------------------------


def label(root):
    return sorted((root / 'labels' / 'data').iterdir())[1]


def rewrite(path, change):
    path.write_text(change(path.read_text()))


def swap_lines(path):
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(''.join([second, first, *rest]))


def record(root, name, change, number=0):
    """Change a record of a nuScenes table, in place or by what the function returns."""
    path = root / MINI / f'{name}.json'
    rows = json.loads(path.read_text())
    change(rows if number is None else rows[number])
    path.write_text(json.dumps(rows))


def box_of(root, change):
    """Change a box of the second training frame."""
    samples = json.loads((root / MINI / 'sample.json').read_text())
    scenes = json.loads((root / MINI / 'scene.json').read_text())
    train = next(s['token'] for s in scenes if s['name'] not in ('scene-0103', 'scene-0916'))
    token = sorted((s['timestamp'], s['token']) for s in samples if s['scene_token'] == train)[1][1]
    record(root, 'sample_annotation', lambda rows: change(
        next(row for row in rows if row['sample_token'] == token)), None)


def xml(root):
    return root / 'data_3d_bboxes' / 'train' / f'{TRAIN}.xml'


def poses(root):
    return root / 'data_poses' / TRAIN / 'poses.txt'


def metadata(root, name, change):
    path = root / 'metadata' / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def split_file(root, **indices):
    (root / 'metadata' / 'dataset_ext_indices.pkl').write_bytes(pickle.dumps(
        {name: np.array(index) for name, index in indices.items()}))


class Evil:
    """A pickle that makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


def replace(old, new, count=-1):
    return lambda text: text.replace(old, new, count)


def transform(change):
    """Change the first transform of a box in an XML file."""
    def edit(text):
        head, rest = text.split('<transform type_id="opencv-matrix">', 1)
        before, rest = rest.split('<data>', 1)
        numbers, tail = rest.split('</data>', 1)
        numbers = ' '.join(change(numbers.split()))
        return f'{head}<transform type_id="opencv-matrix">{before}<data>{numbers}</data>{tail}'
    return edit


def skipped(kind):
    return dict(frames=2, skipped={kind: 1})


CASES = [  # defect, layout, damage, counts of the training split (or the error)
    ('empty labels', D, lambda r: label(r).write_text(''), dict(frames=3, empty_frames=1)),
    ('empty labels', K, lambda r: xml(r).write_text('<opencv_storage></opencv_storage>'),
     rf'{TRAIN}\.xml: no objects; download data_3d_bboxes again'),
    ('empty labels', N, lambda r: (r / MINI / 'sample_annotation.json').write_text('[]'),
     r'sample_annotation\.json: no annotations; extract the metadata again'),
    ('no labels', D, lambda r: label(r).unlink(), skipped('labels')),
    ('no labels', K, lambda r: xml(r).unlink(), r"no frames for split 'train'"),
    ('no labels', N, lambda r: (r / MINI / 'sample_annotation.json').unlink(),
     r'sample_annotation\.json: no table of nuScenes'),
    ('unknown class', D, lambda r: label(r).write_text('Tram 3 3 20 9 9 0 1\n'),
     lambda report: report['objects']['ignored'] == 1),
    ('unknown class', K, lambda r: rewrite(xml(r), replace('>13</semanticId>', '>35</semanticId>')),
     lambda report: report['objects']['car'] == 0),
    ('unknown class', N, lambda r: record(r, 'category', lambda rows: [
        row.update(name='vehicle.spaceship') for row in rows if row['name'] == 'vehicle.car'],
        None), lambda report: report['objects']['car'] == 0 and report['other'] >= 3),
    ('zero-size box', D, lambda r: label(r).write_text('Car 1.5 0 4.5 9 9 0 1\n'),
     skipped('labels')),
    ('zero-size box', K, lambda r: rewrite(xml(r), transform(lambda n: ['0'] * 12 + n[12:])),
     dict(frames=3, skipped={})),
    ('zero-size box', N, lambda r: box_of(r, lambda box: box.update(size=[0, 4, 1])),
     skipped('labels')),
    ('NaN label', D, lambda r: label(r).write_text('Car 1.5 2 4.5 nan 9 0 1\n'),
     skipped('labels')),
    ('NaN label', K, lambda r: rewrite(xml(r), transform(lambda n: ['nan', *n[1:]])),
     r'object \d+ \(\w+\): its transform is not finite'),
    ('NaN label', N, lambda r: box_of(r, lambda box: box['translation'].__setitem__(0, np.nan)),
     skipped('labels')),
    ('wrong column count', D, lambda r: label(r).write_text('Car 1.5 2 4.5 9 9 0\n'),
     skipped('labels')),
    ('wrong column count', K, lambda r: rewrite(xml(r), transform(lambda n: n[:-1])),
     r'object \d+ \(\w+\): cannot reshape array of size 15'),
    ('wrong column count', N, lambda r: box_of(r, lambda box: box['size'].pop()),
     r'sample_annotation\.json: a record lacks the field .* has a wrong one'),
    ('missing pose', D, lambda r: sorted((r / 'oxts' / 'data').iterdir())[1].unlink(),
     skipped('pose')),
    ('missing pose', K, lambda r: rewrite(poses(r), lambda t: t[t.index('\n') + 1:]),
     dict(frames=2, skipped={})),                    # counted beside: 'no pose'
    ('missing pose', N, lambda r: record(r, 'ego_pose', lambda rows: rows.pop(), None),
     r"ego_pose\.json: no record '\w+', which .*sample_data\.json refers to"),
    ('missing calibration key', D, lambda r: metadata(
        r, 'os1.json', lambda meta: meta['data_format'].pop('pixel_shift_by_row')),
     r"os1\.json: expected data_format with pixels_per_column, .*'pixel_shift_by_row'"),
    ('missing calibration key', K, lambda r: rewrite(
        r / 'calibration' / 'image_02.yaml', replace('gamma1', 'gama1')),
     r"image_02\.yaml: no fisheye calibration of type MEI: no 'gamma1'"),
    ('missing calibration key', N, lambda r: record(
        r, 'calibrated_sensor', lambda row: row.pop('camera_intrinsic')),
     r"calibrated_sensor\.json: a record lacks the field 'camera_intrinsic'"),
    ('non-orthogonal rotation', D, lambda r: (r / 'metadata' / 'calibration.json').write_text(
        json.dumps(dict(lidar2cam=np.diag([1, 1, 1.2, 1]).tolist()))),
     r'calibration\.json: lidar2cam: expected a rigid transform'),
    ('non-orthogonal rotation', K, lambda r: rewrite(
        r / 'calibration' / 'calib_cam_to_velo.txt', lambda t: ' '.join(['1.2', *t.split()[1:]])),
     r'calib_cam_to_velo\.txt:1: expected a rotation and a translation'),
    ('non-orthogonal rotation', N, lambda r: record(
        r, 'calibrated_sensor', lambda row: row.update(rotation=[0, 0, 0, 0])),
     r'calibrated_sensor\.json: record \w+: expected 3 finite numbers .*unit quaternion'),
    ('duplicate frame', D, lambda r: split_file(r, train_indices=[0, 1, 1], test_indices=[4]),
     r'dataset_ext_indices\.pkl: 1 frames are listed twice, such as \d{10}'),
    ('frame of both splits', D, lambda r: split_file(r, train_indices=[0, 1], test_indices=[1]),
     'train and test must not share frames'),
    ('duplicate frame', K, lambda r: rewrite(poses(r), lambda t: t + t),
     r'poses\.txt:\d+: expected a frame number of its own'),
    ('duplicate frame', N, lambda r: record(r, 'sample', lambda rows: rows.append(rows[0]), None),
     r'sample\.json: two records \w+'),
    ('timestamps out of order', D, lambda r: swap_lines(r / 'ouster_points' / 'timestamps.txt'),
     dict(frames=3, out_of_order=1)),
    ('timestamps out of order', K, lambda r: swap_lines(
        r / 'data_3d_raw' / TRAIN / 'velodyne_points' / 'timestamps.txt'),
     lambda report: report['frames'] == 3),
    ('timestamps out of order', N, lambda r: record(r, 'sample', lambda rows: rows.reverse(), None),
     dict(frames=3, out_of_order=0)),                 # sorted by their times
    ('wrong version', D, lambda r: [path.rename(path.with_name('0000' + path.name[4:]))
                                    for path in (r / 'image' / 'data').iterdir()],
     r"no images named 1000\*\*\*\*\*\*\.png of version 'extended'"),
    ('wrong version', K, lambda r: (r / 'data_3d_bboxes' / 'train').rename(
        r / 'data_3d_bboxes' / 'other'), 'check data_3d_bboxes/train'),
    ('wrong version', N, lambda r: (r / MINI).rename(r / 'v1.0-trainval'),
     r'there is v1\.0-trainval: choose it with --version'),
    ('unreadable list', D, lambda r: (r / 'metadata' / 'dataset_ext_indices.pkl').write_bytes(b'x'),
     r'dataset_ext_indices\.pkl: not a readable split file: .*; download it again'),
    ('unreadable list', K, lambda r: rewrite(xml(r), lambda text: text[:len(text) // 2]),
     rf'{TRAIN}\.xml: unreadable 3D boxes: .*; download data_3d_bboxes again'),
    ('deep list', K, lambda r: xml(r).write_text('<a>' * 300_000 + '</a>' * 300_000),
     rf'{TRAIN}\.xml: unreadable 3D boxes: it is nested too deeply; download data_3d_bboxes again'),
    ('unreadable list', N, lambda r: rewrite(r / MINI / 'sample_data.json', lambda t: t[:-99]),
     r'sample_data\.json: no table of nuScenes: .*; extract the metadata again'),
    ('empty table', N, lambda r: (r / MINI / 'sample_data.json').write_text('[]'),
     r'sample_data\.json: no files of LIDAR_TOP and the cameras'),
    ('malicious pickle', D, lambda r: (r / 'metadata' / 'dataset_ext_indices.pkl').write_bytes(
        pickle.dumps(Evil(r / 'ran'))), r'not a readable split file: it refers to _?io\.open'),
]


@pytest.mark.parametrize('layout, damage, expected', [case[1:] for case in CASES],
                         ids=[f'{name}-{layout}' for name, layout, *_ in CASES])
def test_defects(layout, damage, expected, spoilable, tmp_path):
    root, out = spoilable(layout), tmp_path / 'out'
    damage(root)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected) as error:
            layouts.convert(layout, root, out)
        assert '\n' not in str(error.value) and not isinstance(error.value, FrameError)
        assert not out.exists() or not list(out.rglob('*.pkl')) + list(out.rglob('.*.tmp'))
        assert not (root / 'ran').exists()
        return
    layouts.convert(layout, root, out)
    report = summary_of(layout, out)
    assert expected(report) if callable(expected) else report | expected == report
    assert len(layouts.dataset(layout, root, out)) == report['frames']


def test_most_frames_bad_is_a_bad_set(spoilable, tmp_path):
    root = spoilable(D)
    metadata(root, 'os1.json', lambda meta: meta['data_format'].update(columns_per_frame=65))
    with pytest.raises(UserError, match='train: 3 of 3 frames are bad: the data set is incomplete'):
        layouts.convert(D, root, tmp_path / 'out')


# Info files -------------------------------------------------------------------------------------


def test_an_info_file_that_would_run_code_is_refused(whole, tmp_path):
    path = tmp_path / 'dur360bev_infos_train.pkl'
    path.write_bytes(pickle.dumps(dict(metainfo=Evil(tmp_path / 'ran'), data_list=[])))
    with pytest.raises(UserError, match=r'not a readable info file: it refers to _?io\.open'):
        layouts.dataset(D, tmp_path, tmp_path)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_an_info_file_with_a_frame_twice_is_refused(layout, whole, tmp_path):
    source = str(layouts.infos(layout, whole(layout)))
    infos = load_infos(source)
    infos['data_list'].append(infos['data_list'][0])
    path = layouts.infos(layout, tmp_path)
    path.write_bytes(pickle.dumps(infos))
    with pytest.raises(UserError, match=r'data_list\[3\]\.token: expected another than .*\[0\]'):
        layouts.dataset(layout, tmp_path, tmp_path)
    with pytest.raises(UserError, match=r'data_list\[3\]\.token'):
        save_infos(infos, str(tmp_path / 'new.pkl'))
    assert not (tmp_path / 'new.pkl').exists() and not list(tmp_path.glob('.*.tmp'))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_an_info_file_is_an_ordinary_pickle(layout, whole):
    path = layouts.infos(layout, whole(layout))
    infos = pickle.loads(path.read_bytes())
    assert type(infos['data_list']) is list and len(infos['data_list']) == 3
    assert repr(infos) == repr(load_infos(str(path)))  # NaN velocities are not equal
    assert [frame['sample_idx'] for frame in infos['data_list']] == [0, 1, 2]


# Killed, and no room ----------------------------------------------------------------------------


def in_child(function):
    """Run a function in a process of its own; its process id.

    tqdm's default lock is shared by forked processes: a child that is killed while it draws its bar
    would leave the bars of this process waiting forever. So the child gets a lock of its own.
    """
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        tqdm.set_lock(threading.RLock())
        function()
        os._exit(0)
    except BaseException:
        os._exit(1)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*'))
            if p.is_file()}


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_killed_at_any_moment(layout, workers, raw, whole, tmp_path, monkeypatch):
    """Nothing half-written under its name, the rest is done later, and no worker stays behind."""
    wanted, rng = contents(whole(layout)), random.Random(f'{layout}{workers}')
    module = dict(zip(LAYOUTS, (dur360bev, kitti360, nuscenes)))[layout]
    read = module._frame
    monkeypatch.setattr(module, '_frame', lambda *args: time.sleep(0.1) or read(*args))
    if layout == N:
        nuscenes.load(str(raw(N)), MINI)
    killed, group = 0, None
    for _ in range(6):
        child = group = in_child(lambda: layouts.convert(layout, raw(layout), tmp_path, workers))
        time.sleep(rng.uniform(0.01, 0.15))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
        for name, data in contents(tmp_path).items():
            if not name.endswith(('.journal', '.tmp', '.lock')):
                assert data == wanted[name], name
    assert killed >= 2
    monkeypatch.undo()
    layouts.convert(layout, raw(layout), tmp_path, workers)
    assert contents(tmp_path) == wanted
    if workers > 1:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
        else:
            pytest.fail('a worker outlives its parent')


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_full_disk_is_one_error_and_loses_nothing(layout, raw, whole, tmp_path, capsys):
    """Files may grow to a few sizes only; the last attempt has room."""
    wanted = contents(whole(layout))
    size = len(wanted[layouts.infos(layout, whole(layout)).name])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (100, size // 2, size - 10):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
            with pytest.raises(UserError, match='cannot write: File too large; make room') as e:
                layouts.convert(layout, raw(layout), tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert '\n' not in str(e.value)
        there = contents(tmp_path)
        assert all(data == wanted[name] for name, data in there.items() if 'journal' not in name)
    layouts.convert(layout, raw(layout), tmp_path)
    assert contents(tmp_path) == wanted


def test_finished_frames_survive_a_full_disk(tmp_path, capsys):
    journal, calls = str(tmp_path / 'j'), []

    def read(key):
        calls.append(key)
        return 'x' * 1000

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, limits[1]))
        with pytest.raises(UserError, match=f'{journal}: cannot write: File too large'):
            common.convert_frames(read, range(40), journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    calls.clear()
    assert len(list(common.convert_frames(read, range(40), journal))) == 40
    assert len(calls) < 25


def test_no_space_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / 'x').write_bytes(b'old')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match='x: cannot write: No space left on device; make room'):
        with atomic_write(tmp_path / 'x') as file:
            file.write(b'new')
    assert contents(tmp_path) == {'x': b'old'}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_any_number_of_workers_gives_the_same_bytes(layout, raw, whole, tmp_path):
    for workers in (1, 3):
        layouts.convert(layout, raw(layout), tmp_path / str(workers), workers)
        assert contents(tmp_path / str(workers)) == contents(whole(layout))


# Cells of the chosen rasteriser -----------------------------------------------------------------


@pytest.mark.parametrize('method', ['exact', 'release'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_cells_of_the_rasterizer_are_those_of_the_pipeline(layout, method, raw, tmp_path):
    summary = layouts.convert(layout, raw(layout), tmp_path, 2, rasterizer=method)
    meta = load_infos(str(layouts.infos(layout, tmp_path)))['metainfo']
    assert meta['bev']['rasterizer'] == method
    assert f"'{method} rasterizer': {meta['bev']['cells']}" in summary['train']
    classes = list(meta['categories'])
    target = dict(layouts.TARGETS[0], classes=[[name] for name in classes], method=method,
                  grid=dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5))
    data = layouts.dataset(layout, raw(layout), tmp_path,
                           pipeline=[target, layouts.TARGETS[1]], metainfo=dict(classes=classes))
    cells = sum(frame['data_samples'].gt_bev.seg.sum((1, 2)) for frame in data).int().tolist()
    assert meta['bev']['cells'] == dict(zip(classes, cells)) and sum(cells) > 100
