"""Images that are panoramas already, and those given to a loader of another kind."""
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet3d_plugin.datasets.transforms import (
    LoadDualFisheye,
    LoadDualFisheyePanorama,
    LoadPanorama,
)
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import CameraRig, panorama

ROOT = Path(__file__).resolve().parents[2]


def frame(path, size, **camera):
    return dict(images=dict(CAM_PANO=dict(
        img_path=str(path), height=size[0], width=size[1], lens='equirect',
        lidar2cam=np.eye(4).tolist(), **camera)))


@pytest.fixture(scope='module')
def sphere(tmp_path_factory):
    """(path, image): a panorama of 90 x 180 whose red is its column and whose green is its row."""
    row, col = np.mgrid[:90, :180]
    image = np.stack([np.abs(col - 90) + 60, row * 2 + 40, np.full(row.shape, 130)], -1)
    path = tmp_path_factory.mktemp('sphere') / 'sphere.png'
    cv2.imwrite(str(path), image.astype(np.uint8)[..., ::-1])
    return path, image


def test_a_whole_sphere_is_taken_as_it_is(sphere):
    path, image = sphere
    out = LoadPanorama((90, 180))(frame(path, (90, 180)))
    np.testing.assert_array_equal(out['img'][0], image)
    camera, = out['cameras']
    assert (camera['lens'], camera['height'], camera['width']) == ('equirect', 90, 180)
    np.testing.assert_allclose([camera['fov_up'], camera['fov_down']], [np.pi / 2, -np.pi / 2])


def test_convention_rows_are_cut_at_their_edges(sphere):
    """Two degrees a row: 30 to -60 degrees are the rows 30 to 74."""
    path, image = sphere
    out = LoadPanorama((45, 180), (30, -60))(frame(path, (90, 180)))
    np.testing.assert_array_equal(out['img'][0], image[30:75])
    np.testing.assert_allclose(np.rad2deg([out['cameras'][0][k] for k in ('fov_up', 'fov_down')]),
                               [30, -60])


def test_convention_pixels_show_what_the_camera_projects(sphere):
    """The same point is at the same content in the whole sphere and in a resized part of it."""
    import torch
    path, image = sphere
    out = LoadPanorama((90, 360), (31, -29))(frame(path, (90, 180)))
    points = torch.tensor([[10.0, 3, 1], [-4, 8, -2], [0, -9, 3]])
    pixels, _, valid = CameraRig.from_dicts([out['cameras']]).project(points)
    whole = LoadPanorama((90, 180))(frame(path, (90, 180)))
    raw, _, _ = CameraRig.from_dicts([whole['cameras']]).project(points)
    assert valid.all()
    for (x, y), (u, v) in zip(pixels[0, 0].round().int().tolist(), raw[0, 0].tolist()):
        red, green, _ = out['img'][0][y, x].tolist()
        assert abs(red - (abs(u - 90) + 60)) <= 1.5 and abs(green - (2 * v + 40)) <= 2


def test_the_edges_of_the_file_are_in_the_info_file(sphere):
    path, image = sphere
    out = LoadPanorama((45, 180), (30, 0))(
        frame(path, (90, 180), fov_up=np.deg2rad(30), fov_down=np.deg2rad(-30)))
    np.testing.assert_array_equal(out['img'][0], image[:45])
    with pytest.raises(UserError, match='shows 30.0 to -30.0 degrees, LoadPanorama needs 90.0 to'):
        LoadPanorama((45, 180))(
            frame(path, (90, 180), fov_up=np.deg2rad(30), fov_down=np.deg2rad(-30)))


@pytest.mark.parametrize('loader', [LoadDualFisheyePanorama((16, 32)), LoadDualFisheye()])
def test_a_panorama_is_no_dual_fisheye(sphere, loader):
    path, _ = sphere
    with pytest.raises(UserError, match="got None with the lens 'equirect'; load a panorama with"):
        loader(frame(path, (90, 180)))
    with pytest.raises(UserError, match="sphere.png: expected a dual-fisheye image, got a pano.*"
                                        "LoadPanorama"):
        loader(frame(path, (90, 180), source_lens='dual_fisheye'))
    with pytest.raises(UserError, match="LoadPanorama needs the lens 'equirect' and no source_l"):
        LoadPanorama((90, 180))(frame(path, (90, 180), source_lens='dual_fisheye'))


def test_what_is_a_panorama(sphere):
    """A dual fisheye is dark in the corners; without torch the answer is the same."""
    spec = importlib.util.spec_from_file_location('infer', ROOT / 'tools' / 'infer_onnx.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    _, image = sphere
    image = image.astype(np.uint8)
    edge = np.arange(90) - 44.5
    inside = np.hypot(edge, edge[:, None]) <= 45
    dual = image * np.concatenate([inside, inside], 1)[..., None]
    noise = np.random.default_rng(0).integers(0, 256, (90, 180, 3), np.uint8)
    for check in (panorama.is_panorama, tool.is_panorama):
        assert [check(x) for x in (image, dual, noise)] == [True, False, False]


def test_without_torch_rows_are_cut_and_resized_alike(sphere):
    from mmdet3d_plugin.deployment.preprocessing import recipe_of
    spec = importlib.util.spec_from_file_location('infer', ROOT / 'tools' / 'infer_onnx.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    path, image = sphere
    step = dict(type='LoadPanorama', size=(32, 128), fov_deg=(30, -60))
    _, recipe, _ = recipe_of([step], frame(path, (90, 180)))
    assert recipe == dict(kind='panorama', rows=(30, 75), images=dict(CAM_PANO=(90, 180)))
    np.testing.assert_array_equal(
        tool.panorama(image.astype(np.uint8), *recipe['rows'], (32, 128)),
        LoadPanorama((32, 128), (30, -60))(frame(path, (90, 180)))['img'][0])
