import copy
import os
import pickle
import re
import time

import numpy as np
import pytest

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.structures import load_infos, save_infos, validate_infos


def good():
    frame = dict(
        sample_idx=0, token='a', scene_token='s', frame_id='0000000000', timestamp=1.5,
        ego2global=np.eye(4).tolist(),
        images=dict(CAM_PANO=dict(img_path='a.png', height=64, width=128, lens='equirect',
                                  lidar2cam=np.eye(4).tolist())),
        lidar_points=dict(lidar_path='a.bin', num_pts_feats=9),
        instances=[dict(bbox_3d=[1., 2, 3, 4, 2, 1, .5], bbox_label_3d=0),
                   dict(bbox_3d=[9., 2, 3, 4, 2, 1, .5], bbox_label_3d=-1)])
    meta = dict(categories=dict(car=0), dataset='d', version='v', info_version='1.1',
                lidar_image=dict(projection='staggered', height=2, width=8, fov_up=.4, fov_down=-.4,
                                 pixel_shift_by_row=[1, 0]))
    second = dict(copy.deepcopy(frame), sample_idx=1, token='b', instances=[])
    return dict(metainfo=meta, data_list=[second, frame])


def test_good_infos_pass_and_round_trip(tmp_path):
    path = str(tmp_path / 'infos.pkl')
    save_infos(good(), path)
    assert load_infos(path) == good()
    assert os.listdir(tmp_path) == ['infos.pkl']


FRAME = ('data_list', 1)
PINHOLE = dict(img_path='a.png', height=64, width=128, lens='pinhole', lidar2cam=np.eye(4).tolist())
BAD = [
    (('metainfo', 'dataset'), None, 'metainfo.dataset: missing, expected str'),
    (('metainfo', 'categories', 'car'), 'x',
     "metainfo.categories['car']: expected int, got str 'x'"),
    (('metainfo', 'lidar_image', 'pixel_shift_by_row'), [0, 10**40],
     'metainfo.lidar_image.pixel_shift_by_row: expected numbers of at most 1e+08, got list'),
    (('metainfo', 'lidar_image', 'pixel_shift_by_row'), [1, 2, 3],
     'metainfo.lidar_image.pixel_shift_by_row: expected 2 finite floats, got list [1, 2, 3]'),
    (('metainfo', 'lidar_image', 'fov_up'), -0.4,
     'lidar_image.fov_up: expected elevations of the edges, fov_down < fov_up, radians'),
    ((*FRAME, 'token'), 7, 'data_list[1].token: expected str, got int 7'),
    ((*FRAME, 'sample_idx'), True, 'data_list[1].sample_idx: expected int, got bool True'),
    ((*FRAME, 'timestamp'), float('nan'), 'data_list[1].timestamp: expected a finite float'),
    ((*FRAME, 'instances'), None, 'data_list[1].instances: missing, expected list'),
    ((*FRAME, 'ego2global'), np.diag([2, 1, 1, 1.]), 'ego2global: expected a rigid 4x4 transform'),
    ((*FRAME, 'images', 'CAM_PANO', 'lidar2cam'), [[1, 2]],
     'data_list[1].images.CAM_PANO.lidar2cam: expected 4x4 finite floats, got list [[1, 2]]'),
    ((*FRAME, 'images', 'CAM_PANO', 'lens'), 'fish',
     "lens: expected one of ('equirect', 'pinhole', 'mei'), got str 'fish'"),
    ((*FRAME, 'images', 'CAM_PANO', 'aperture_dg'), 190.0,
     "images.CAM_PANO.aperture_dg: no such field of a camera; did you mean 'aperture_deg'?"),
    ((*FRAME, 'images', 'CAM_PANO', 'aperture_deg'), '190',
     "aperture_deg: expected a finite float, got str '190'"),
    ((*FRAME, 'images', 'CAM_PANO', 'source_lens'), np.eye(2),
     "source_lens: expected 'dual_fisheye', or none, got ndarray"),
    ((*FRAME, 'images', 'CAM_PANO', 'source_lens'), 'fisheye',
     "source_lens: expected 'dual_fisheye', or none, got str 'fisheye'"),
    ((*FRAME, 'images', 'CAM_PANO', 'fov_up'), -1.6,
     'fov_up: expected elevations of the edges, fov_down < fov_up, radians, got tuple (-1.6, '),
    ((*FRAME, 'images', 'CAM_PANO'), PINHOLE | dict(cam2img=[[-9, 0, 5], [0, 9, 5], [0, 0, 1]]),
     'CAM_PANO.cam2img: expected [[fx, skew, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0, got'),
    ((*FRAME, 'images', 'CAM_PANO'), PINHOLE | dict(cam2img=[[9, 0, 5], [0, 9, 5], [0, 0, 0]]),
     'CAM_PANO.cam2img: expected [[fx, skew, cx]'),
    ((*FRAME, 'images', 'CAM_PANO', 'lidar2cam'), np.zeros((4, 4)),
     'lidar2cam: expected a rigid 4x4 transform'),
    ((*FRAME, 'images', 'CAM_PANO', 'lens'), 'mei', 'images.CAM_PANO.mei: missing, expected dict'),
    ((*FRAME, 'images', 'CAM_PANO', 'lens'), 'pinhole', 'cam2img: expected 3x3 finite floats'),
    ((*FRAME, 'lidar_points', 'lidar_path'), None, 'lidar_points.lidar_path: missing'),
    ((*FRAME, 'token'), 'b', "data_list[1].token: expected another than that of data_list[0], got "
     "str 'b'"),
    ((*FRAME, 'images', 'CAM_PANO', 'height'), 0, 'CAM_PANO.height: expected pixels of an image'),
    ((*FRAME, 'lidar_points', 'feature_names'), ['x'], 'feature_names: expected 9 names, got'),
    ((*FRAME, 'lidar_points', 'motion'), [0], 'lidar_points.motion: expected 6 finite floats'),
    ((*FRAME, 'lidar_sweeps'), [dict(lidar_points=dict(lidar_path='a', lidar2sensor=[[1]]))],
     'lidar_sweeps[0].lidar_points.lidar2sensor: expected 4x4 finite floats'),
    ((*FRAME, 'lidar_sweeps'), [dict(lidar_points=dict(lidar_path='a', lidar2sensor=np.diag(
        [1, 1, -1, 1]).tolist()))], 'lidar2sensor: expected a rigid 4x4 transform'),
    (('metainfo', 'lidar_frame'), {}, 'metainfo.lidar_frame: expected str'),
    ((*FRAME, 'instances', 1, 'bbox_3d'), [1, 2, 3, 4, 5, float('nan'), 0],
     'data_list[1].instances[1].bbox_3d: expected 7 finite floats, '
     'got list [1, 2, 3, 4, 5, nan, 0]'),
    ((*FRAME, 'instances', 1, 'bbox_3d'), [1, 2, 3, 4], 'expected 7 finite floats'),
    ((*FRAME, 'instances', 0, 'bbox_3d'), [1, 2, 3, 0, 1, 1, 0], 'length, width, height > 0'),
    ((*FRAME, 'instances', 0, 'bbox_label_3d'), 5,
     'an index of metainfo.categories [-1, 0], got int 5'),
    ((*FRAME, 'instances', 1, 'extra'), 5, 'data_list[1].instances[1]: expected the keys of'),
    (('metainfo', 'categories', 'car'), 10**9, "categories['car']: expected -1 to 1023, got int"),
    (('metainfo', 'lidar_image', 'height'), 10**10, 'lidar_image.height: expected rows of a scan'),
    (('metainfo', 'lidar_image', 'width'), 0, 'lidar_image.width: expected columns of a scan'),
    (('metainfo', 'lidar_image', 'pixel_shift_by_row'), ['1', '2'], 'expected 2 finite floats'),
    (('metainfo', 'lidar_image', 'pixel_shift_by_row'), [0, 1 << 16],
     'pixel_shift_by_row: expected columns of a scan'),
    (('metainfo', 'lidar_image', 'fov_down'), 0.4, 'fov_up: expected elevations of the edges'),
    ((*FRAME, 'timestamp'), 1.6e18, 'timestamp: expected numbers of at most 1e+11, got float'),
    ((*FRAME, 'timestamp'), '1.5', "timestamp: expected a finite float, got str '1.5'"),
    ((*FRAME, 'timestamp'), np.str_('1.5'), 'timestamp: expected a finite float, got str_'),
    ((*FRAME, 'token'), np.str_('a'), 'data_list[1].token: expected str, got str_'),
    ((*FRAME, 'token'), 'a\0', 'token: expected text of at most 4096 characters without NUL'),
    ((*FRAME, 'token'), 'a' * 5000, 'token: expected text of at most 4096 characters without NUL'),
    ((*FRAME, 'sample_idx'), -1, 'sample_idx: expected the number of a frame, got int -1'),
    ((*FRAME, 'lidar_points', 'num_pts_feats'), 10**10, 'expected 3 to 64 values of a point, got'),
    ((*FRAME, 'lidar_points', 'num_pts_feats'), 2, 'expected 3 to 64 values of a point, got int 2'),
    ((*FRAME, 'lidar_points', 'lidar_path'), '\0', 'lidar_path: expected text of at most 4096'),
    ((*FRAME, 'images', 'CAM_PANO', 'img_path'), '\ud800', 'img_path: expected text of at most'),
    ((*FRAME, 'images', 'CAM_PANO', 'width'), 10**400, 'width: expected pixels of an image'),
    ((*FRAME, 'images', 'CAM_PANO', 'timestamp'), 'now', 'CAM_PANO.timestamp: expected a finite'),
    ((*FRAME, 'images', 'CAM_PANO', 'cam2ego'), [[1]], 'CAM_PANO.cam2ego: expected 4x4 finite'),
    ((*FRAME, 'images', 3), {}, 'a key of data_list[1].images: expected str, got int 3'),
    ((*FRAME, 'images', 'CAM_PANO'), PINHOLE | dict(cam2img=[[1e300, 0, 5], [0, 9, 5], [0, 0, 1]]),
     'CAM_PANO.cam2img: expected numbers of at most 1e+06'),
    ((*FRAME, 'instances', 1), np.float64(3), 'instances[1]: expected dict, got float64 '),
    ((*FRAME, 'instances', 1, 'bbox_3d'), [10**400, 2, 3, 4, 2, 1, 0], 'expected 7 finite floats'),
    ((*FRAME, 'instances', 1, 'bbox_3d'), ['1', 2, 3, 4, 2, 1, 0], 'expected 7 finite floats'),
    ((*FRAME, 'instances', 1, 'bbox_3d'), [1, 1e300, 3, 4, 2, 1, 0],
     'instances[1].bbox_3d: expected a place of at most 100000 m and a size of at most 1000 m'),
    ((*FRAME, 'instances', 1, 'bbox_3d'), [1, 2, 3, 3e38, 2, 1, 0], 'a size of at most 1000 m'),
    ((*FRAME, 'instances', 1, 'bbox_3d'), [1, 2, 3, 4, 2, 1, 1e9], 'bbox_3d: expected a place'),
    ((*FRAME, 'instances', 0, 'bbox_label_3d'), 0.0, 'bbox_label_3d: expected int, got float 0.0'),
    ((*FRAME, 'more'), {1, 2}, 'data_list[1].more: expected plain values'),
    ((*FRAME, 'more'), np.array([None]), 'data_list[1].more: expected plain values'),
    (('metainfo', 'more'), [[[[[[[[[[1]]]]]]]]]], 'metainfo.more: expected plain values'),
]


@pytest.mark.parametrize('at, value, message', BAD, ids=[str(i) for i in range(len(BAD))])
def test_every_bad_field_is_named(at, value, message):
    infos = good()
    parent = infos
    for key in at[:-1]:
        parent = parent[key]
    if value is None:
        del parent[at[-1]]
    else:
        parent[at[-1]] = value
    with pytest.raises(UserError) as error:
        validate_infos(infos, 'x.pkl')
    assert message in str(error.value) and str(error.value).startswith('x.pkl: ')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('at, value, message', BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_would_not_load_is_not_written(at, value, message, tmp_path):
    infos = parent = good()
    for key in at[:-1]:
        parent = parent[key]
    parent.pop(at[-1]) if value is None else parent.__setitem__(at[-1], value)
    with pytest.raises(UserError, match=re.escape(message)):
        save_infos(infos, str(tmp_path / 'infos.pkl'))
    assert not os.listdir(tmp_path)


BOMB = []
for _ in range(40):
    BOMB = [BOMB] * 10
FIELDS = [('metainfo', ), ('metainfo', 'categories'), ('metainfo', 'categories', 'car'),
          ('metainfo', 'more'), ('metainfo', 'lidar_image', 'pixel_shift_by_row'),
          ('data_list', ), FRAME, (*FRAME, 'timestamp'), (*FRAME, 'token'), (*FRAME, 'ego2global'),
          (*FRAME, 'images'), (*FRAME, 'images', 'CAM_PANO', 'lidar2cam'),
          (*FRAME, 'images', 'CAM_PANO', 'mei'), (*FRAME, 'lidar_points', 'feature_names'),
          (*FRAME, 'lidar_sweeps'), (*FRAME, 'instances'), (*FRAME, 'instances', 0, 'bbox_3d'),
          (*FRAME, 'instances', 0, 'velocity'), (*FRAME, 'more')]


def nested():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize('at', FIELDS, ids=str)
@pytest.mark.parametrize('bad', [BOMB, nested()], ids=['10**40 shared lists', '100000 deep'])
def test_shared_and_nested_lists_end_soon(at, bad):
    infos = parent = good()
    for key in at[:-1]:
        parent = parent[key]
    parent[at[-1]] = bad
    begin = time.process_time()
    with pytest.raises(UserError) as error:
        validate_infos(infos)
    assert time.process_time() - begin < 2 and len(str(error.value)) < 400


def test_lists_nested_without_end_are_a_user_error(tmp_path):
    path = tmp_path / 'infos.pkl'
    path.write_bytes(b'\x80\x02' + b']' * 100_000 + b'a' * 99_999 + b'.')
    with pytest.raises(UserError, match='top level: expected dict, got list'):
        load_infos(str(path))


@pytest.mark.parametrize('infos', [{}, [], dict(metainfo=3, data_list=[]), dict(metainfo={})])
def test_infos_without_their_parts_are_not_written(infos, tmp_path):
    with pytest.raises(UserError, match='metainfo|top level'):
        save_infos(infos, str(tmp_path / 'infos.pkl'))
    with pytest.raises(UserError, match='data_list: missing'):
        save_infos(dict(metainfo=good()['metainfo']), str(tmp_path / 'infos.pkl'))
    assert not os.listdir(tmp_path)


def test_velocities_may_be_unknown():
    infos = good()
    for instance in infos['data_list'][1]['instances']:
        instance['velocity'] = [float('nan'), 0]
    validate_infos(infos)
    infos['data_list'][1]['instances'][1]['velocity'] = [1e300, 0]
    with pytest.raises(UserError, match='velocity: expected 2 numbers of at most 100000, or NaN'):
        validate_infos(infos)


def test_nothing_is_written_when_invalid(tmp_path):
    infos = good()
    infos['data_list'][0]['token'] = 3
    with pytest.raises(UserError):
        save_infos(infos, str(tmp_path / 'infos.pkl'))
    assert not os.listdir(tmp_path)


def test_missing_and_foreign_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match='no such info file; write it with tools/create_data.py'):
        load_infos(str(tmp_path / 'none.pkl'))
    path = tmp_path / 'cut.pkl'
    path.write_bytes(pickle.dumps(good())[:50])
    with pytest.raises(UserError, match='not a readable info file'):
        load_infos(str(path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'ran'), )

    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps(dict(good(), more=Evil())))
    with pytest.raises(UserError, match=r'not a readable info file: it refers to posix\.mkdir'):
        load_infos(str(path))
    assert not (tmp_path / 'ran').exists()


def test_frames_may_come_one_by_one(tmp_path):
    """Written without a list in memory, the file is a plain pickle, whatever the frames share."""
    infos, path = good(), str(tmp_path / 'infos.pkl')
    shared = infos['data_list'][0]['images']
    frames = [dict(infos['data_list'][n % 2], token=str(n), images=shared, again=[shared, shared])
              for n in range(300)]
    save_infos(dict(infos, data_list=(frame for frame in frames)), path)
    with open(path, 'rb') as file:
        assert pickle.load(file) == load_infos(path) == dict(infos, data_list=frames)


def test_numpy_values_are_plain(tmp_path):
    path, infos = tmp_path / 'infos.pkl', good()
    infos['data_list'][0].update(ego2global=np.eye(4), timestamp=np.float64(2))
    path.write_bytes(pickle.dumps(infos))
    assert load_infos(str(path))['data_list'][0]['timestamp'] == 2
