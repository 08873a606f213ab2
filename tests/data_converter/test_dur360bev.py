import json
import os
import pickle
import shutil
import signal
from functools import partial

import cv2
import numpy as np
import pytest

from data_converter import common, dur360bev
from mmdet3d_plugin.errors import FrameError, UserError
from mmdet3d_plugin.locking import locked
from mmdet3d_plugin.structures import load_infos, load_metainfo
from tests.helpers.dur360bev import COLS, ROWS, make_root


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / 'data')


def convert(root, **kwargs):
    return dur360bev.convert(str(root), version='extended', **kwargs)


def test_infos_hold_what_the_files_say(root):
    summary = convert(root, check=True)
    assert set(summary) == {'train', 'val'}
    train = load_infos(str(root / 'dur360bev_infos_train.pkl'))
    val = load_infos(str(root / 'dur360bev_infos_val.pkl'))
    assert [f['frame_id'] for f in val['data_list']] == ['1000000004', '1000000005']
    assert [f['sample_idx'] for f in train['data_list']] == [0, 1, 2, 3]
    first = train['data_list'][0]
    assert first['token'] == 'extended_1000000000' and first['scene_token'] == 'extended'
    assert first['lidar_points'] == dict(lidar_path='ouster_points/data/1000000000.bin',
                                         num_pts_feats=9)
    camera = first['images']['CAM_PANO']
    assert (camera['img_path'], camera['height'], camera['width']) == (
        'image/data/1000000000.png', 32, 64)
    assert (camera['lens'], camera['source_lens'], camera['aperture_deg']) == (
        'equirect', 'dual_fisheye', 203.0)
    assert camera['lidar2cam'] == np.eye(4).tolist()
    # h w l x y z yaw -> x y z l w h yaw; unknown classes are -1
    assert [i['bbox_3d'] for i in first['instances']] == [
        [10, 5, -1, 4.5, 1.8, 1.5, 0], [-8, 2, -1, .6, .6, 1.7, 1.5], [30, 30, 0, 20, 3, 3, 1]]
    assert [i['bbox_label_3d'] for i in first['instances']] == [0, 3, -1]
    assert train['data_list'][1]['instances'] == []
    image = train['metainfo']['lidar_image']
    assert (image['height'], image['width']) == (ROWS, COLS)
    assert image['pixel_shift_by_row'][:4] == [3, 1, -1, -3]
    assert image['fov_up'] == -image['fov_down'] == pytest.approx(np.deg2rad(22.5))
    step = train['data_list'][1]['timestamp'] - first['timestamp']
    assert step == pytest.approx(1) and first['timestamp'] == pytest.approx(1717236000.5)
    assert not list(root.glob('*.journal'))


def test_report_counts(root):
    convert(root)
    infos = load_infos(str(root / 'dur360bev_infos_train.pkl'))
    assert dur360bev.report(infos) == dict(
        frames=4, sequences=1, empty_frames=1, out_of_order=0, skipped={},
        objects=dict(car=2, bus=1, truck=0, pedestrian=2, ignored=2))


def test_workers_change_nothing(root, tmp_path):
    dur360bev.convert(str(root), str(tmp_path / 'one'), 'extended', 1)
    dur360bev.convert(str(root), str(tmp_path / 'two'), 'extended', 2)
    for split in ('train', 'val'):
        name = f'dur360bev_infos_{split}.pkl'
        assert load_infos(str(tmp_path / 'one' / name)) == load_infos(str(tmp_path / 'two' / name))


def test_pose_is_metric_east_north_up(root):
    convert(root)
    frames = load_infos(str(root / 'dur360bev_infos_train.pkl'))['data_list']
    pose = np.array(frames[1]['ego2global'])
    np.testing.assert_allclose(pose[:3, 3], [0, 0.01 * np.pi / 180 * 6378137, 0], atol=1e-6)
    np.testing.assert_allclose(pose[:2, 0], [np.cos(.5), np.sin(.5)])


def test_optional_metadata_is_used(root):
    names = {f'1000{n:06d}': f'town_{n // 3}' for n in range(6)}
    (root / 'metadata' / 'sequences.json').write_text(json.dumps(names))
    shifted = np.eye(4)
    shifted[2, 3] = 0.15
    calibration = json.dumps(dict(lidar2cam=shifted.tolist()))
    (root / 'metadata' / 'calibration.json').write_text(calibration)
    os1 = json.loads((root / 'metadata' / 'os1.json').read_text())
    os1['beam_altitude_angles'] = np.linspace(14, -14, ROWS).tolist()
    (root / 'metadata' / 'os1.json').write_text(json.dumps(os1))
    convert(root)
    infos = load_infos(str(root / 'dur360bev_infos_train.pkl'))
    assert [f['scene_token'] for f in infos['data_list']] == ['town_0'] * 3 + ['town_1']
    assert infos['data_list'][3]['token'] == 'town_1_1000000003'
    assert infos['data_list'][0]['images']['CAM_PANO']['lidar2cam'][2][3] == 0.15
    assert infos['metainfo']['lidar_image']['fov_up'] == pytest.approx(np.deg2rad(16))


def test_versions_select_by_prefix(root, tmp_path):
    assert dur360bev.frame_ids(str(root), 'complete') == dur360bev.frame_ids(str(root), 'extended')
    with pytest.raises(UserError, match=r'no images named 0000\*\*\*\*\*\*\.png'):
        dur360bev.frame_ids(str(root), 'initial')
    many = make_root(tmp_path / 'many', frames=30)
    assert [int(i[4:]) for i in dur360bev.splits(str(many), 'mini')['train']] == [0, 10, 20]


def test_json_split_replaces_the_pickle(root):
    (root / 'metadata' / 'dataset_ext_indices.pkl').unlink()
    (root / 'metadata' / 'dataset_ext_indices.json').write_text(
        '{"train_indices": [5, 0], "test_indices": []}')
    assert dur360bev.splits(str(root)) == dict(train=['1000000005', '1000000000'], val=[])


def merged(folder):
    """The complete set as the authors' script makes it of six initial and 30 extended frames."""
    root = make_root(folder / 'initial', frames=6, prefix='0000')
    other = make_root(folder / 'extended', frames=30)
    (root / 'metadata' / 'dataset_ext_indices.pkl').rename(
        root / 'metadata' / 'dataset_indices.pkl')
    shutil.copy(other / 'metadata' / 'dataset_ext_indices.pkl', root / 'metadata')
    for sensor in dur360bev.SENSORS:
        for path in (other / sensor / 'data').iterdir():
            path.rename(root / sensor / 'data' / path.name)
        times = root / sensor / 'timestamps.txt'
        added = (other / sensor / 'timestamps.txt').read_text().replace('2024-', '2025-')
        times.write_text(times.read_text() + '\\n' + added)  # a backslash and an n
    return root


def test_every_version_of_a_merged_folder(tmp_path):
    """Lengths come from the version's frames, not from the timestamps of the whole folder."""
    root = merged(tmp_path)
    first, then = ([f'{prefix}{n:06d}' for n in range(count)]
                   for prefix, count in (('0000', 6), ('1000', 30)))
    expected = dict(initial=(first[:4], first[4:]), extended=(then[:28], then[28:]),
                    mini=(then[:28:10], then[28:29]),
                    complete=(first[:4] + then[:28], first[4:] + then[28:]))
    for version, (train, val) in expected.items():
        out = tmp_path / version
        dur360bev.convert(str(root), str(out), version)
        infos = [load_infos(str(out / f'dur360bev_infos_{s}.pkl')) for s in ('train', 'val')]
        assert [[f['frame_id'] for f in i['data_list']] for i in infos] == [train, val]
        assert infos[0]['metainfo']['version'] == version
        for frame in infos[0]['data_list']:  # each time is that of its own frame
            extended, second = frame['frame_id'].startswith('1'), int(frame['frame_id'][4:])
            start = 1748772000.5 if extended else 1717236000.5
            assert frame['timestamp'] == start + second
            assert frame['scene_token'] == ('extended' if extended else 'initial')
        # The split written as JSON gives the same frames in place of all pickles.
        written, = (out / 'dur360bev_split').iterdir()
        assert written.name == f'{dur360bev.VERSIONS[version][1]}.json'
        alone = root / 'metadata' / written.name
        shutil.copy(written, alone)
        assert dur360bev.splits(str(root), version) == dict(train=train, val=val)
        alone.unlink()


def test_an_own_split_file_of_complete_is_taken(tmp_path):
    root = merged(tmp_path)
    (root / 'metadata' / 'dataset_comp_indices.pkl').write_bytes(pickle.dumps(
        dict(train_indices=np.array([0, 6]), test_indices=np.array([35]))))
    assert dur360bev.splits(str(root), 'complete') == dict(
        train=['0000000000', '1000000000'], val=['1000000029'])


# Errors of the user: one line that names the file ---------------------------------------------


def scan(root):
    return root / 'ouster_points' / 'data' / '1000000004.bin'


def image(root):
    return root / 'image' / 'data' / '1000000004.png'


def label(root):
    return root / 'labels' / 'data' / '1000000004.txt'


def write_png(path, height, width):
    cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


ERRORS = {
    'missing scan': (lambda r: scan(r).unlink(), '1000000004.bin: missing LiDAR scan'),
    'cut scan': (lambda r: scan(r).write_bytes(scan(r).read_bytes()[:-100]),
                 '1000000004.bin: 18332 bytes, expected 18432'),
    'no image': (lambda r: image(r).write_bytes(b''), '1000000004.png: unreadable image'),
    'cut image': (lambda r: image(r).write_bytes(image(r).read_bytes()[:-50]),
                    '1000000004.png: unreadable image: not a complete PNG'),
    'wrong size': (lambda r: write_png(image(r), 32, 60),
                   '1000000004.png: wrong image size 60x32, expected 64x32 like the first frame'),
    'seven tokens': (lambda r: label(r).write_text('\nCar 1 2 3 4 5 6\n'),
                     '1000000004.txt:2: expected 8 tokens (class height width length x y z '
                     'yaw), got 7'),
    'nan label': (lambda r: label(r).write_text('Car 1 2 3 nan 5 6 0\n'),
                  '1000000004.txt:1: expected finite numbers'),
    'word label': (lambda r: label(r).write_text('Car 1 2 3 x 5 6 0\n'),
                   '1000000004.txt:1: could not convert'),
    'missing label': (lambda r: label(r).unlink(), '1000000004.txt: cannot read'),
    'timestamps': (lambda r: (r / 'labels' / 'timestamps.txt').write_text('1\n2\n'),
                   'timestamps of unequal length: image/timestamps.txt 6, labels/timestamps.txt 2'),
    'odd time': (lambda r: (r / 'ouster_points' / 'timestamps.txt').write_text('1\n2\nx\n4\n5\n6'),
                 'ouster_points/timestamps.txt:3: expected seconds or YYYY-MM-DD'),
    'lost image': (lambda r: (r / 'image' / 'data' / '1000000000.png').unlink(),
                     "has 5 frames of version 'extended'; is the download complete?"),
    'extra image': (lambda r: write_png(r / 'image' / 'data' / '1000000009.png', 32, 64),
                      'image/timestamps.txt: 6 lines, but image/data holds 7 images'),
    'empty': (lambda r: shutil.rmtree(r / 'image' / 'data') or (r / 'image' / 'data').mkdir(),
              'no images named 1000******.png of version \'extended\''),
    'no folder': (lambda r: shutil.rmtree(r / 'image'), 'image/data: no such folder; --root-path'),
    'no split': (lambda r: (r / 'metadata' / 'dataset_ext_indices.pkl').unlink(),
                 'dataset_ext_indices.pkl (or .json): no such split file'),
    'split range': (lambda r: (r / 'metadata' / 'dataset_ext_indices.pkl').write_bytes(
        pickle.dumps(dict(train_indices=np.array([99]), test_indices=np.array([0])))),
        'train_indices has indices 99..99, but'),
    'split content': (lambda r: (r / 'metadata' / 'dataset_ext_indices.pkl').write_bytes(
        pickle.dumps(dict(train_indices=np.array([.5])))),
        'train_indices: expected a list of integers'),
    'no os1': (lambda r: (r / 'metadata' / 'os1.json').unlink(), 'os1.json: cannot read'),
    'os1 shifts': (lambda r: (r / 'metadata' / 'os1.json').write_text(json.dumps(dict(
        data_format=dict(pixels_per_column=ROWS, columns_per_frame=COLS, pixel_shift_by_row=[1])))),
        'os1.json: pixel_shift_by_row has 1 entries, expected pixels_per_column = 8'),
    'oxts': (lambda r: (r / 'oxts' / 'data' / '1000000004.txt').write_text('1 2 3\n'),
             '1000000004.txt:1: expected 6 finite numbers'),
}


@pytest.mark.parametrize('case', ERRORS)
def test_errors_name_the_file_in_one_line(root, case):
    spoil, message = ERRORS[case]
    spoil(root)
    with pytest.raises(UserError) as error:
        convert(root)
    assert message in str(error.value) and '\n' not in str(error.value)
    assert not (root / 'dur360bev_infos_val.pkl').exists()
    assert not list(root.glob('.*.tmp'))


def test_a_split_that_fails_leaves_no_file_of_the_other(root, tmp_path):
    scan(root).unlink()
    out = tmp_path / 'out'
    with pytest.raises(UserError, match='missing LiDAR scan'):
        convert(root, out_dir=str(out))
    assert sorted(p.name for p in out.rglob('*') if p.is_file()) == [
        'dur360bev_infos_train.pkl.journal', 'dur360bev_infos_val.pkl.journal']
    convert(root, out_dir=str(out), only=('train', ))
    assert sorted(p.name for p in out.rglob('*') if p.is_file()) == [
        'dataset_ext_indices.json', 'dur360bev_infos_train.pkl',
        'dur360bev_infos_val.pkl.journal']
    with pytest.raises(UserError, match="--splits vall: no such split; did you mean 'val'"):
        convert(root, only=('vall', ))


@pytest.mark.parametrize('spoil, message', [
    (lambda r: shutil.rmtree(r / 'ouster_points' / 'data'),
     'ouster_points/data: no such folder; the conversion needs images, labels, scans and poses, '),
    (lambda r: [p.rename(p.with_suffix('.jpg')) for p in (r / 'image' / 'data').iterdir()],
     'image/data has .jpg files where .png is expected')])
def test_parts_of_the_set_have_a_way_out(root, spoil, message):
    spoil(root)
    with pytest.raises(UserError, match=message):
        convert(root)


def test_errors_pass_through_worker_processes(root):
    scan(root).unlink()
    with pytest.raises(FrameError, match='missing LiDAR scan') as error:
        convert(root, workers=2)
    assert error.value.kind == 'scan'


def test_unknown_version_and_split(root):
    with pytest.raises(UserError, match="unknown version 'extnded'.*did you mean 'extended'"):
        dur360bev.convert(str(root), None, 'extnded')
    with pytest.raises(UserError, match="unknown split 'test'.*known: train, val"):
        dur360bev.frames(str(root), 'test')


def test_check_decodes_what_the_cheap_test_cannot_see(root):
    data = bytearray(image(root).read_bytes())
    data[60:400] = bytes(340)
    image(root).write_bytes(bytes(data))
    convert(root)
    with pytest.raises(UserError, match=r'1000000004\.png: unreadable .*cannot be decoded'):
        convert(root, check=True)


def test_check_finds_nan_in_scans(root):
    values = np.fromfile(scan(root), '<f4')
    values[7] = np.nan
    values.tofile(scan(root))
    with pytest.raises(UserError, match=r'1000000004\.bin: 1 values are not finite'):
        convert(root, check=True)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


def test_a_pickle_that_would_run_code_is_refused(root, tmp_path):
    path = root / 'metadata' / 'dataset_ext_indices.pkl'
    path.write_bytes(pickle.dumps(dict(train_indices=Evil(str(tmp_path / 'ran')))))
    with pytest.raises(UserError, match=r'not a readable split file: it refers to (_?io)\.open'):
        convert(root)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_split_pickles_of_every_protocol_load(tmp_path, protocol):
    path = tmp_path / 's.pkl'
    path.write_bytes(pickle.dumps(dict(a=np.arange(3)), protocol=protocol))
    np.testing.assert_array_equal(common.read_split(path)['a'], [0, 1, 2])


# Resuming -------------------------------------------------------------------------------------


def test_a_stopped_run_continues_and_notices_changed_files(tmp_path):
    calls, journal = [], str(tmp_path / 'j')

    def read(key):
        calls.append(key)
        if key == 3 and len(calls) < 5:
            raise RuntimeError('killed')
        return key * 10

    def collect():
        return list(common.convert_frames(read, range(5), journal, marks.get))

    marks = dict.fromkeys(range(5), 0)
    with pytest.raises(RuntimeError):
        collect()
    with open(journal, 'ab') as file:
        file.write(common._record((3, 0, 'half written', {}))[:-4])
    assert collect() == [0, 10, 20, 30, 40]
    assert calls == [0, 1, 2, 3, 3, 4]
    marks[1] = 1
    assert collect() == [0, 10, 20, 30, 40]
    assert calls[6:] == [1]


def test_a_journal_is_of_one_root_of_one_setting_and_of_one_version_of_the_code(
        tmp_path, monkeypatch):
    calls, journal = [], str(tmp_path / 'j')

    def read(root, sweeps, key):
        calls.append((root, sweeps))
        return f'{root} {sweeps} {key}'

    def collect(root, sweeps):
        return list(common.convert_frames(partial(read, root, sweeps), [0], journal))

    assert collect('/a', 1) == collect('/a', 1) == ['/a 1 0'] and len(calls) == 1
    assert collect('/b', 1) == ['/b 1 0'] and collect('/b', 2) == ['/b 2 0']
    monkeypatch.setattr(common, 'code_sha256', lambda: 'another')
    assert collect('/b', 2) == ['/b 2 0'] and calls == [('/a', 1), ('/b', 1), ('/b', 2), ('/b', 2)]


def test_a_journal_that_would_run_code_is_cut_off(tmp_path):
    path = tmp_path / 'j'
    path.write_bytes(common._record(Evil(str(tmp_path / 'ran'))))
    assert list(common.convert_frames(str, [1], str(path))) == ['1']
    assert not (tmp_path / 'ran').exists()


def test_many_bad_frames_are_a_bad_set(capfd):
    def read(key):
        if key % 8 == 0:
            raise FrameError(f'{key}: cut', 'scan')
        return key

    frames = common.convert_frames(read, range(80), desc='train')
    assert list(frames) == frames.keys == [n for n in range(80) if n % 8]
    assert frames.skipped == dict(scan=10) and len(frames) == 70
    assert 'train: frame left out (10 so far): 72: cut' in capfd.readouterr().err
    with pytest.raises(UserError, match='train: 11 of 100 frames are bad: the data set is .*80: c'):
        common.convert_frames(read, range(100), desc='train')
    with pytest.raises(UserError, match='1 of 1 frames are bad'):
        common.convert_frames(read, [0])
    with pytest.raises(FrameError, match='0: cut'):
        common.convert_frames(read, range(80), strict=True)


def test_a_dead_worker_is_an_error_not_a_wait():
    with pytest.raises(UserError, match='a worker process died .* finishes the rest'):
        common.convert_frames(die, range(4), workers=2)


def die(key):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_byte_order_mark_is_skipped(tmp_path):
    for name, content in (('a.txt', '1 2\n3'), ('a.json', '{"x": 1}')):
        (tmp_path / name).write_bytes(b'\xef\xbb\xbf' + content.encode())
    assert common.read_lines(str(tmp_path / 'a.txt')) == ['1 2', '3']
    assert common.read_json(str(tmp_path / 'a.json')) == {'x': 1}


def test_another_version_replaces_nothing_unasked(root, tmp_path):
    out = tmp_path / 'out'
    convert(root, out_dir=str(out))
    before = (out / 'dur360bev_infos_val.pkl').read_bytes()
    with pytest.raises(UserError, match=(
            r'dur360bev_infos_train.pkl is of another conversion \(version extended, now mini\); '
            'choose another --out-dir, or replace it with --overwrite')):
        dur360bev.convert(str(root), out_dir=str(out), version='mini')
    assert (out / 'dur360bev_infos_val.pkl').read_bytes() == before
    assert convert(root, out_dir=str(out)).keys() == {'train', 'val'}
    (out / 'dur360bev_infos_train.pkl').write_bytes(b'damaged')
    convert(root, out_dir=str(out), only=('train', ))
    assert load_metainfo(str(out / 'dur360bev_infos_train.pkl'))['version'] == 'extended'


def test_one_conversion_at_a_time(root, tmp_path):
    out = tmp_path / 'out'
    with locked(out / '.conversion.lock', 'busy'), pytest.raises(UserError, match=(
            rf'another conversion writes to {out}; wait for it.*pid {os.getpid()}\)')):
        convert(root, out_dir=str(out))
    assert not list(out.iterdir())
