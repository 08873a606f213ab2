"""Rigs given as JSON pass the checks of an info file; the program without torch has the same."""
import copy
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmdet3d_plugin.deployment.packaging import first_frame
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry.cameras import LENSES
from mmdet3d_plugin.structures import check_rig, info

ROOT = Path(__file__).resolve().parents[2]
COMMON = dict(height=60, width=100, lidar2cam=np.eye(4).tolist())
MEI = dict(xi=2.2, k1=0.1, k2=0.2, p1=0.0, p2=0.0, gamma1=500.0, gamma2=500.0, u0=50.0, v0=30.0)
GOOD = dict(
    PINHOLE=dict(COMMON, lens='pinhole', cam2img=[[30.0, 0, 50], [0, 30, 30], [0, 0, 1]]),
    MEI=dict(COMMON, lens='mei', theta_max_deg=92.5, mei=MEI),
    EQUIRECT=dict(COMMON, lens='equirect', fov_up=0.4, fov_down=-0.4),
    DUAL=dict(COMMON, lens='equirect', source_lens='dual_fisheye', aperture_deg=203.0))
MIRROR, NAN = np.diag([1.0, -1, 1, 1]).tolist(), float('nan')
GONE = object()
BAD = [
    ('PINHOLE', ('height', ), GONE, 'images.PINHOLE.height: missing'),
    ('PINHOLE', ('height', ), '60', 'images.PINHOLE.height: expected'),
    ('PINHOLE', ('width', ), 0, 'images.PINHOLE.width: expected pixels of an image'),
    ('PINHOLE', ('width', ), True, 'images.PINHOLE.width: expected'),
    ('PINHOLE', ('lens', ), GONE, 'images.PINHOLE.lens: missing'),
    ('PINHOLE', ('lens', ), 'fisheye', 'images.PINHOLE.lens: expected'),
    ('PINHOLE', ('lidar2cm', ), 1, "lidar2cm: no such field.*did you mean 'lidar2cam'"),
    ('PINHOLE', ('lidar2cam', ), np.zeros((4, 4)).tolist(), 'images.PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('lidar2cam', ), MIRROR, 'images.PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('lidar2cam', ), np.diag([2.0, 2, 2, 1]).tolist(), 'PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('lidar2cam', 0, 0), NAN, 'images.PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('lidar2cam', ), np.eye(3).tolist(), 'images.PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('lidar2cam', 3, 3), 2.0, 'images.PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('lidar2cam', 0, 0), '1', 'images.PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('cam2img', ), GONE, 'images.PINHOLE.cam2img: '),
    ('PINHOLE', ('cam2img', 0, 0), -30.0, r'images.PINHOLE.cam2img: '),
    ('PINHOLE', ('cam2img', 1, 1), 0.0, r'images.PINHOLE.cam2img: '),
    ('PINHOLE', ('cam2img', 2, 2), 0.0, r'images.PINHOLE.cam2img: '),
    ('PINHOLE', ('cam2img', 0, 2), NAN, 'images.PINHOLE.cam2img: '),
    ('PINHOLE', ('cam2img', 0, 2), 1e7, r'cam2img: expected .*numbers of at most 1e\+06'),
    ('PINHOLE', ('cam2img', 0, 2), 10**400, 'images.PINHOLE.cam2img: expected'),
    ('PINHOLE', ('lidar2cam', 0, 3), 1e9, 'images.PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('lidar2cam', ), [[[[[]]]]], 'images.PINHOLE.lidar2cam: expected'),
    ('PINHOLE', ('width', ), 10**10, 'images.PINHOLE.width: expected pixels of an image'),
    ('PINHOLE', ('width', ), 100.0, 'images.PINHOLE.width: expected'),
    ('EQUIRECT', ('fov_down', ), 0.4, 'images.EQUIRECT.fov_up: expected elevations'),
    ('EQUIRECT', ('fov_up', ), '0.4', 'images.EQUIRECT.fov_up: expected'),
    ('MEI', ('mei', ), GONE, 'images.MEI.mei: missing'),
    ('MEI', ('mei', 'gamma1'), -500.0, 'images.MEI.mei.gamma1: expected a parameter of a fisheye'),
    ('MEI', ('mei', 'xi'), GONE, 'images.MEI.mei.xi: '),
    ('MEI', ('mei', 'gama1'), 500.0, "images.MEI.mei.gama1: no such .*did you mean 'gamma1'"),
    ('MEI', ('mei', 'u0'), 1e9, 'images.MEI.mei.u0: expected a parameter of a fisheye'),
    ('MEI', ('theta_max_deg', ), GONE, 'images.MEI.theta_max_deg: '),
    ('MEI', ('theta_max_deg', ), 0.0, 'images.MEI.theta_max_deg: expected'),
    ('EQUIRECT', ('fov_up', ), -0.5, 'images.EQUIRECT.fov_up: expected elevations'),
    ('EQUIRECT', ('fov_up', ), 90.0, 'images.EQUIRECT.fov_up: expected'),
    ('DUAL', ('source_lens', ), 'fisheye', "images.DUAL.source_lens: expected 'dual_fisheye'"),
    ('DUAL', ('aperture_deg', ), '203', 'images.DUAL.aperture_deg: expected a'),
    ('DUAL', ('aperture_deg', ), 0, 'images.DUAL.aperture_deg: expected'),
    ('DUAL', ('aperture_dg', ), 203.0, "aperture_dg: no such field.*did you mean 'aperture_deg'")]


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('infer', ROOT / 'tools' / 'infer_onnx.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(camera, at, value):
    images = {camera: copy.deepcopy(GOOD[camera])}
    parent = images[camera]
    for key in at[:-1]:
        parent = parent[key]
    if value is GONE:
        del parent[at[-1]]
    else:
        parent[at[-1]] = value
    return images


def test_good_rigs_pass(tool):
    check_rig(GOOD, 'rig')
    tool.check_rig(GOOD, 'rig')


@pytest.mark.parametrize('camera, at, value, message', BAD, ids=[str(n) for n in range(len(BAD))])
def test_bad_rigs_are_refused_with_and_without_torch(tool, tmp_path, camera, at, value, message):
    images = changed(camera, at, value)
    for check, kind in ((check_rig, UserError), (tool.check_rig, tool.InputError)):
        with pytest.raises(kind, match=message):
            check(images, 'rig.json')
    file = tmp_path / 'rig.json'
    file.write_text(json.dumps(images))
    with pytest.raises(UserError, match=message):
        first_frame(SimpleNamespace(dataset_cfg=None), file)


def test_the_lists_of_names_are_the_same(tool):
    assert tool.CAMERA_FIELDS == info.CAMERA_FIELDS
    assert tool.MEI_PARAMETERS == info.MEI_PARAMETERS


def network(tool, kind='resize'):
    columns = ['fx', 'skew', 'cx', 'k10', 'fy', 'cy', 'k20', 'k21', 'k22']
    return SimpleNamespace(
        path=Path('m.onnx'), meta=dict(
            preprocessing=dict(kind=kind, images={'PINHOLE': [60, 100]}),
            inputs=dict(lens=dict(columns=columns))),
        feed=dict(lidar2cam=np.eye(4, dtype=np.float32)[None], lens=np.zeros((1, 9), np.float32),
                  img_aug=np.eye(3, dtype=np.float32)[None]))


def test_cameras_are_a_calibration_without_torch(tool, tmp_path):
    file, model = tmp_path / 'rig.json', network(tool)
    turned = [[0, -1, 0, 1.0], [0, 0, -1, 2], [1, 0, 0, 3], [0, 0, 0, 1]]
    file.write_text(json.dumps(dict(images=dict(PINHOLE=dict(GOOD['PINHOLE'], lidar2cam=turned)))))
    tool.calibrate(model, file)
    assert model.feed['lidar2cam'].tolist() == [turned]
    assert model.feed['lens'].tolist() == [[30, 0, 50, 0, 30, 30, 0, 0, 1]]
    assert (model.feed['img_aug'] == np.eye(3)).all()


@pytest.mark.parametrize('kind, images, message', [
    ('resize', dict(PINHOL=GOOD['PINHOLE']), "PINHOL: the network has no such.*mean 'PINHOLE'"),
    ('resize', dict(PINHOLE=GOOD['MEI']), 'mei of 100x60, the network was exported for pinhole'),
    ('resize', dict(PINHOLE=dict(GOOD['PINHOLE'], height=61)), 'pinhole of 100x61, the network'),
    ('stitch', dict(PINHOLE=GOOD['PINHOLE']), 'export it again with --info'),
    ('resize', dict(), 'expected {NAME: camera}'),
    ('resize', dict(PINHOLE=dict(GOOD['PINHOLE'], lens='fish')), 'PINHOLE.lens: expected')])
def test_cameras_that_do_not_fit_the_network(tool, tmp_path, kind, images, message):
    file = tmp_path / 'rig.json'
    file.write_text(json.dumps(dict(images=images)))
    with pytest.raises(tool.InputError, match=message):
        tool.calibrate(network(tool, kind), file)


@pytest.mark.parametrize('values, message', [
    (dict(lidar2cam=np.zeros((1, 4, 4)).tolist()), r'lidar2cam\[0\]: expected a rotation'),
    (dict(lidar2cam=[MIRROR]), r'lidar2cam\[0\]: expected a rotation'),
    (dict(lidar2cam=[np.full((4, 4), NAN).tolist()]), r'lidar2cam\[0\]: expected finite numbers'),
    (dict(lens=[[-30, 0, 50, 0, 30, 30, 0, 0, 1]]), r'lens\[0\]: fx: expected a number > 0'),
    (dict(lens=[[30, 0, 50, 0, 30, 30, 0, 0, 0]]), r'lens\[0\]: expected a pinhole'),
    (dict(img_aug=np.zeros((1, 3, 3)).tolist()), r'img_aug\[0\]: expected a matrix'),
    (dict(lidar2cm=np.eye(4)[None].tolist()), "lidar2cm of shape .*did you mean 'lidar2cam'")])
def test_values_that_no_rig_has(tool, tmp_path, values, message):
    file = tmp_path / 'rig.json'
    file.write_text(json.dumps(values))
    with pytest.raises(tool.InputError, match=message):
        tool.calibrate(network(tool), file)


def test_lenses_have_the_columns_of_the_package(tool):
    assert set(tool.LENS_COLUMNS) == {lens._fields for lens in LENSES.values()}
