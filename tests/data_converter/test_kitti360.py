import dataclasses
import shutil

import cv2
import numpy as np
import pytest

from data_converter import kitti360
from mmdet3d_plugin.datasets import Kitti360BEVDataset
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.structures import load_infos
from tests.helpers.kitti360 import (
    MEI,
    fisheye,
    make_root,
    name_of,
    place,
    pose,
    velo_to_pose,
    velo_to_world,
    xml_object,
)
from tools import create_data

TRAIN, VAL = name_of(2), name_of(10)
OPTIONS = dict(sequences=(2, 10))


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    return make_root(tmp_path_factory.mktemp('kitti360') / 'data')


@pytest.fixture
def root(shared, tmp_path):
    """A root of its own, to be damaged."""
    return shutil.copytree(shared, tmp_path / 'data')


def convert(root, out=None, workers=1, check=False, only=(), **options):
    options = kitti360.Options(**{**OPTIONS, **options})
    return kitti360.convert(str(root), str(out or root), options, workers, check, only=only)


def infos_of(folder, split='train'):
    return load_infos(str(folder / f'kitti360_infos_{split}.pkl'))


@pytest.fixture(scope='module')
def train(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp('infos')
    summary = convert(shared, out, check=True)
    assert sorted(p.name for p in out.iterdir()) == [
        'kitti360_infos_train.pkl', 'kitti360_infos_val.pkl', 'kitti360_split']
    assert summary['skipped'] == {'no pose': 4}          # frames 0 and 3 of either drive
    return infos_of(out)


def test_infos_hold_what_the_files_say(shared, train):
    assert [f['frame_id'] for f in train['data_list']] == [f'{n:010d}' for n in (1, 2, 4, 5)]
    assert [f['sample_idx'] for f in train['data_list']] == [0, 1, 2, 3]
    frame = train['data_list'][1]
    assert frame['token'] == f'{TRAIN}_0000000002' and frame['scene_token'] == TRAIN
    assert frame['lidar_points']['lidar_path'] == (
        f'data_3d_raw/{TRAIN}/velodyne_points/data/0000000002.bin')
    assert frame['lidar_points']['feature_names'] == ['x', 'y', 'z', 'intensity']
    step = train['data_list'][2]['timestamp'] - frame['timestamp']
    assert step == pytest.approx(0.2, abs=1e-6)            # keyed by frame, not by line
    for camera, k in (('CAM_FISHEYE_LEFT', 2), ('CAM_FISHEYE_RIGHT', 3)):
        image = frame['images'][camera]
        assert image['img_path'] == f'data_2d_raw/{TRAIN}/image_0{k}/data_rgb/0000000002.png'
        assert image['mei'] == MEI[k] and image['lens'] == 'mei' and image['height'] == 8
        assert image['theta_max_deg'] == 92.5
        np.testing.assert_allclose(image['lidar2cam'], fisheye(k)['lidar2cam'], atol=1e-9)
    np.testing.assert_allclose(frame['ego2global'], velo_to_world(2), atol=1e-9)
    assert train['metainfo']['categories']['unknown vehicle'] == 10
    assert train['metainfo']['conversion']['val_drives'] == (10,)
    image = train['metainfo']['lidar_image']
    assert np.rad2deg([image['fov_up'], image['fov_down']]).tolist() == pytest.approx([3, -25])


def test_categories_are_the_classes_of_the_data_set():
    assert tuple(kitti360.CATEGORIES) == Kitti360BEVDataset.METAINFO['classes']


def test_static_boxes_need_points_and_dynamic_ones_their_frame(train):
    seen = [[(i['source_index'], i['is_static']) for i in f['instances']]
            for f in train['data_list']]
    assert seen == [[(1, True), (4, False)], [(1, True), (5, False)], [(1, True), (6, False)],
                    [(1, True)]]
    car, truck = train['data_list'][1]['instances']
    np.testing.assert_allclose(car['bbox_3d'], [10, 5, -1, 4, 2, 1.5, .5], atol=1e-4)
    assert car['num_lidar_pts'] == 30 and car['velocity'] == [0, 0]
    assert car['instance_id'] == 26001 and truck['instance_id'] == 27007
    np.testing.assert_allclose(truck['bbox_3d'], [10, -4, -1, 8, 2.5, 3, 0], atol=1e-4)
    assert (car['bbox_label_3d'], truck['bbox_label_3d']) == (0, 1)
    assert truck['num_lidar_pts'] == 0
    # The truck goes 1 m a frame of 0.1 s; velocity is central, and one-sided at the ends.
    for frame in train['data_list'][:3]:
        np.testing.assert_allclose(frame['instances'][1]['velocity'], [10, 0], atol=1e-3)


def test_more_points_may_be_asked_for(shared, tmp_path):
    convert(shared, tmp_path, min_points=31)
    assert [len(f['instances']) for f in infos_of(tmp_path)['data_list']] == [1, 1, 1, 0]


def test_velocity_of_an_object_seen_once_is_unknown(root):
    xml = [xml_object(1, place(10, 5, -1), timestamp=2)]
    shutil.rmtree(root)
    make_root(root, xml=xml)
    convert(root, check=True)
    boxes = [f['instances'] for f in infos_of(root)['data_list']]
    assert [len(b) for b in boxes] == [0, 1, 0, 0]
    assert np.isnan(boxes[1][0]['velocity']).all()


def test_pitched_boxes_are_tested_as_they_stand(shared):
    """A box pitched by 0.3 rad: the upright box of the info file is an approximation."""
    transform = np.diag([8.0, 2, 0.2, 1])
    pitch = np.array([[np.cos(.3), 0, np.sin(.3)], [0, 1, 0], [-np.sin(.3), 0, np.cos(.3)]])
    transform[:3, :3] = pitch @ transform[:3, :3]
    points = np.array([[3.5, 0, 0], [3.8 * np.cos(.3), .9, -3.8 * np.sin(.3)], [0, 1.1, 0]])
    assert kitti360.points_inside(points, transform) == 1
    x, y, z, *sizes, yaw = kitti360.upright_box(transform)
    assert sizes == pytest.approx([8, 2, .2]) and yaw == pytest.approx(0)


def test_report_counts(train):
    assert kitti360.report(train) == dict(
        frames=4, sequences=1, empty_frames=0, dynamic=3, out_of_order=0, skipped={},
        objects=dict.fromkeys(kitti360.CATEGORIES, 0) | dict(car=4, truck=3))


def test_workers_change_nothing_and_a_stopped_run_continues(shared, tmp_path, monkeypatch):
    convert(shared, tmp_path / 'one', workers=1)
    convert(shared, tmp_path / 'two', workers=2)
    original, calls = kitti360._frame, []

    def stop_at_the_third(root, options, key):
        calls.append(key)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(root, options, key)

    monkeypatch.setattr(kitti360, '_frame', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        convert(shared, tmp_path / 'three')
    assert not list((tmp_path / 'three').glob('*.pkl'))
    convert(shared, tmp_path / 'three')
    assert len(calls) == 3 + 2 + 4                         # two of train were remembered
    for split in ('train', 'val'):
        one, two, three = ((tmp_path / n / f'kitti360_infos_{split}.pkl').read_bytes()
                           for n in ('one', 'two', 'three'))
        assert one == two == three


# Splits ---------------------------------------------------------------------------------------


def test_thinning_is_even():
    assert kitti360.subsample(list(range(10)), 4) == [0, 2, 5, 7]
    assert kitti360.subsample([1, 2], 0) == kitti360.subsample([1, 2], 5) == [1, 2]
    assert len(set(kitti360.subsample(list(range(58368)), 20000))) == 20000


def test_the_drawn_frames_are_written_and_can_be_read_again(shared, tmp_path):
    summary = convert(shared, tmp_path, max_frames=(2, 3))
    assert summary['skipped'] == {'no pose': 4, 'train thinned': 2, 'val thinned': 1}
    lines = (tmp_path / 'kitti360_split' / 'train.txt').read_text().splitlines()
    assert lines == [f'{TRAIN};0000000001', f'{TRAIN};0000000004']
    convert(shared, tmp_path / 'again', split=str(tmp_path / 'kitti360_split'))
    for split in ('train', 'val'):
        assert (infos_of(tmp_path / 'again', split)['data_list']
                == infos_of(tmp_path, split)['data_list'])


def test_official_windows(root):
    folder = root / 'data_3d_semantics' / 'train'
    folder.mkdir(parents=True)
    for split, windows in (('train', [(TRAIN, 1, 2), (VAL, 1, 4)]), ('val', [(VAL, 4, 5)])):
        (folder / f'2013_05_28_drive_{split}.txt').write_text(''.join(
            f'data_3d_semantics/train/{name}/static/{a:010d}_{b:010d}.ply\n'
            for name, a, b in windows))
    summary = convert(root, split='windows')
    assert summary['skipped'] == {'no pose': 4, 'not annotated': 2}
    tokens = [f['token'] for f in infos_of(root)['data_list']]
    assert tokens == [f'{TRAIN}_0000000001', f'{TRAIN}_0000000002', f'{VAL}_0000000001',
                      f'{VAL}_0000000002']                  # frame 4 is in both: val
    assert [f['frame_id'][-1] for f in infos_of(root, 'val')['data_list']] == ['4', '5']


def test_windows_of_the_boxes_bound_the_frames_where_the_lists_are_missing(root):
    shutil.rmtree(root)
    make_root(root, xml=[xml_object(1, place(10, 5, -1), start_frame=2, end_frame=4)])
    assert convert(root)['skipped'] == {'no pose': 4, 'not annotated': 4}


def test_drive_0_is_labelled_from_frame_250():
    assert kitti360.FIRST_LABELLED == {0: 250}


# Readers --------------------------------------------------------------------------------------


def test_boxes_without_ids_follow_from_label_and_track(tmp_path):
    path = tmp_path / 'b.xml'
    gone = dict.fromkeys(('semanticId', 'instanceId', 'start_frame', 'end_frame'))
    path.write_text('<opencv_storage>'
                    + xml_object(1, place(1, 2, 3), 'pedestrian', 4, **gone | dict(dynamicSeq=9))
                    + xml_object(2, place(1, 2, 3), 'unknownVehicle', **gone)
                    + xml_object(3, place(1, 2, 3), 'smallpole', **gone) + '</opencv_storage>')
    boxes, windows = kitti360.read_boxes(str(path))
    assert [(b.category, b.instance, b.timestamp, b.index) for b in boxes] == [
        ('person', 9, 4, 1), ('unknown vehicle', 0, -1, 2)]
    assert windows == []
    np.testing.assert_allclose(boxes[0].transform, place(1, 2, 3), atol=1e-4)


def test_poses_are_keyed_by_frame(shared):
    poses = kitti360.read_poses(str(shared / 'data_poses' / TRAIN / 'poses.txt'))
    assert sorted(poses) == [1, 2, 4, 5]
    np.testing.assert_allclose(poses[4], pose(4), atol=1e-9)


def test_calibration_chain(shared):
    drive = kitti360.sequence(str(shared), TRAIN, 'train')
    np.testing.assert_allclose(drive.pose_from_velo, velo_to_pose(), atol=1e-12)
    np.testing.assert_allclose(drive.pose_from_velo[:3, 3], [0.7710, 0.2985, -0.8363], atol=1e-4)


def test_motion_takes_points_of_the_scan_before_to_this_one(shared):
    drive = kitti360.sequence(str(shared), TRAIN, 'train')
    assert drive.motion(4) == drive.motion(1) == [0] * 6   # frames 3 and 0 have no pose
    turn, shift = np.split(np.array(drive.motion(2)), 2)
    np.testing.assert_allclose(turn, 0, atol=1e-9)
    # 2 m ahead in the pose frame, whose x axis is within a degree of the velodyne's
    assert np.linalg.norm(shift) == pytest.approx(2) and shift[0] == pytest.approx(-2, abs=1e-3)


@pytest.mark.parametrize('lines, expected, untimed', [
    (('1.0', '1.5', '2.0'), [1.5, 2.0, 2.2, 2.3], 3), ((), [0.1, 0.2, 0.4, 0.5], 6)])
def test_times_beyond_the_file_are_counted_on_and_said(root, lines, expected, untimed):
    """Frames 1, 2, 4 and 5; those that have a line keep it, and no speed follows from a guess."""
    path = root / 'data_3d_raw' / TRAIN / 'velodyne_points' / 'timestamps.txt'
    path.write_text('\n'.join(lines)) if lines else path.unlink()
    report = convert(root)
    data = infos_of(root)['data_list']
    assert [f['timestamp'] for f in data] == pytest.approx(expected)
    assert report['timestamps'].startswith(f'{TRAIN}: {untimed} scans have no line in velodyne_po')
    moving = [i['velocity'][0] for n in (2, 3) for i in data[n]['instances'] if not i['is_static']]
    assert moving and np.isnan(moving).all()
    assert 'timestamps' not in convert(make_root(root / 'whole'))


def test_the_last_known_time_gives_a_speed(root):
    """Frame 2 of a car that drives 1 m a frame, from frame 1 on; frame 3 has no time."""
    drive = kitti360.sequence(str(root), TRAIN, 'train')
    box = next(b for n in sorted(drive.dynamic) for b in drive.dynamic[n])
    track = {n: np.array([float(n), 0, 0]) for n in range(4)}
    known = dataclasses.replace(drive, times=[0.0, 0.5, 1.0],
                                tracks={(box.category, box.instance): track})
    at = dataclasses.replace(box, timestamp=2)
    np.testing.assert_allclose(known.velocity(at), [2, 0, 0])
    assert np.isnan(known.velocity(dataclasses.replace(box, timestamp=3))).all()


@pytest.mark.parametrize('spoil, message', [
    (lambda r: [p.rename(p.with_suffix('.jpg')) for p in (r / 'data_2d_raw').rglob('*.png')],
     'image_02/data_rgb has .jpg files where .png is expected'),
    (lambda r: shutil.rmtree(r / 'data_2d_raw' / TRAIN / 'image_03'),
     'leave the drive out with --sequences; the conversion needs scans and both fisheyes')])
def test_parts_of_the_set_have_a_way_out(root, spoil, message):
    spoil(root)
    with pytest.raises(UserError, match=message):
        convert(root)


def test_a_split_that_fails_leaves_no_file_of_the_other(root, tmp_path):
    scan(root).write_bytes(b'cut')
    with pytest.raises(UserError, match='the file is cut'):
        convert(root, tmp_path / 'out')
    assert sorted(p.name for p in (tmp_path / 'out').rglob('*') if p.is_file()) == [
        'kitti360_infos_train.pkl.journal', 'kitti360_infos_val.pkl.journal']
    assert list(convert(root, tmp_path / 'out', only=('train', ))) == ['train', 'skipped']
    assert infos_of(tmp_path / 'out') and not (tmp_path / 'out/kitti360_infos_val.pkl').exists()


# Errors of the user: one line that names the file and the next step ---------------------------


def rewrite(path, change):
    path.write_text(change(path.read_text()))


def scan(root):
    return root / 'data_3d_raw' / VAL / 'velodyne_points' / 'data' / '0000000002.bin'


def image(root):
    return root / 'data_2d_raw' / VAL / 'image_03' / 'data_rgb' / '0000000002.png'


def xml(root):
    return root / 'data_3d_bboxes' / 'train' / f'{TRAIN}.xml'


def poses(root):
    return root / 'data_poses' / TRAIN / 'poses.txt'


def calibration(root, name='calib_cam_to_pose.txt'):
    return root / 'calibration' / name


LOL = ('<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
       '<opencv_storage><object1><label>&b;</label></object1></opencv_storage>')
ERRORS = {
    'no drive': (lambda r: shutil.rmtree(r / 'data_3d_raw' / TRAIN),
                 'velodyne_points/data: no such folder; download this part of the drive, or leave '
                 'the drive out with --sequences'),
    'no poses': (lambda r: poses(r).unlink(), 'poses.txt: no such file; download the poses'),
    'no boxes': (lambda r: xml(r).unlink(),
                 f'{TRAIN}.xml: no such file; download the 3D boxes (data_3d_bboxes) of {TRAIN}'),
    'cut scan': (lambda r: scan(r).write_bytes(scan(r).read_bytes()[:-3]),
                 '0000000002.bin: 1325 bytes, expected points of 4 float32'),
    'empty scan': (lambda r: scan(r).write_bytes(b''), '0000000002.bin: no bytes, expected points'),
    'cut image': (lambda r: image(r).write_bytes(image(r).read_bytes()[:-9]),
                    '0000000002.png: unreadable image: not a complete PNG'),
    'wrong size': (lambda r: cv2.imwrite(str(image(r)), np.zeros((8, 9, 3), np.uint8)),
                   '0000000002.png: wrong image size 9x8, calibration/image_03.yaml says 8x8'),
    'cut xml': (lambda r: rewrite(xml(r), lambda text: text[:len(text) // 2]),
                f'{TRAIN}.xml: unreadable 3D boxes: '),
    'entities': (lambda r: xml(r).write_text(LOL), 'it has a document type declaration'),
    'glued numbers': (lambda r: rewrite(xml(r), lambda text: text.replace('e+00 ', 'e+00')),
                      f'{TRAIN}.xml: object 1 (car): could not convert'),
    'short matrix': (lambda r: xml(r).write_text(
        xml(r).read_text().replace('1.00000000e+00</data>', '</data>', 1)),
        f'{TRAIN}.xml: object 1 (car): cannot reshape array of size 15'),
    'word for a number': (lambda r: rewrite(
        xml(r), lambda text: text.replace('<timestamp>-1<', '<timestamp>x<', 1)),
        "object 1 (car): invalid literal for int() with base 10: 'x'"),
    'pose cut': (lambda r: rewrite(poses(r), lambda text: text[:-80]),
                 'poses.txt:4: expected 12 numbers of a 3x4 matrix, got'),
    'pose twice': (lambda r: rewrite(poses(r), lambda text: text.replace('2.0 ', '1.0 ', 1)),
                   "poses.txt:2: expected a frame number of its own, got '1.0'"),
    'no rotation': (lambda r: rewrite(calibration(r), lambda text: text.replace('0.9992', '1.2')),
                    'calib_cam_to_pose.txt:1: expected a rotation and a translation'),
    'missing camera': (lambda r: rewrite(calibration(r), lambda text: text.split('image_03')[0]),
                       'calib_cam_to_pose.txt: no line image_03:; download the calibration again'),
    'missing key': (lambda r: rewrite(calibration(r, 'image_02.yaml'),
                                      lambda text: text.replace('gamma1', 'gama1')),
                    "image_02.yaml: no fisheye calibration of type MEI: no 'gamma1'"),
    'no yaml': (lambda r: calibration(r, 'image_02.yaml').write_text('%YAML:1.0\n\t{['),
                'image_02.yaml: no fisheye calibration of type MEI: '),
    'no calibration': (lambda r: calibration(r).unlink(), 'calib_cam_to_pose.txt: cannot read'),
}


@pytest.mark.parametrize('case', ERRORS)
def test_errors_name_the_file(root, case):
    spoil, message = ERRORS[case]
    spoil(root)
    with pytest.raises(UserError) as error:
        convert(root)
    assert message in str(error.value) and '\n' not in str(error.value)
    assert not (root / 'kitti360_infos_val.pkl').exists()


def test_check_finds_what_cannot_be_decoded(root):
    data = bytearray(image(root).read_bytes())
    data[-40] ^= 255
    image(root).write_bytes(bytes(data))
    convert(root)
    with pytest.raises(UserError, match='0000000002.png: unreadable image: it cannot be decoded'):
        convert(root, check=True)


@pytest.mark.parametrize('options, message', [
    (dict(sequences=(2, 8)), r'drives \[8\] have no public labels'),
    (dict(sequences=(2,)), "no frames for split 'val' .*train.txt and val.txt.* or write --splits"
     ' train alone'),
    (dict(only=('vall', )), "--splits vall: no such split; did you mean 'val'"),
    (dict(split='window'), "expected drives, windows, or a folder .* did you mean 'windows'"),
    (dict(split='windows'), 'no window lists'),
])
def test_bad_options_are_named(shared, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        convert(shared, tmp_path, **options)


def test_command(shared, tmp_path, capsys):
    args = create_data.parse_args([
        'kitti360', '--root-path', str(shared), '--out-dir', str(tmp_path), '--sequences', '2',
        '10', '--max-frames', '3', '0', '--check'])
    args.run(args)
    out = capsys.readouterr().out
    assert "train: " in out and "'car': 3" in out and "skipped: {'no pose': 4" in out
    assert infos_of(tmp_path, 'val')['metainfo']['conversion']['max_frames'] == (3, 0)
