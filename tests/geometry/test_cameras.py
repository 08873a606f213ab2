import math

import numpy as np
import pytest
import torch

from mmdet3d_plugin.geometry import BEVGrid, CameraRig, build_pull_map
from mmdet3d_plugin.geometry.cameras import (
    azimuth_elevation,
    project_equirect,
    project_pinhole,
    unproject_equirect,
    unproject_pinhole,
)

FULL_SPHERE = torch.tensor([math.pi / 2, -math.pi / 2])


def panorama(height=1024, width=2048, fov=90.0, **extra):
    return dict(name='CAM_PANO', lens='equirect', lidar2cam=np.eye(4), height=height, width=width,
                fov_up=math.radians(fov), fov_down=-math.radians(fov), **extra)


def pinhole(**extra):
    lidar2cam = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]])
    cam2img = np.array([[400, 0, 320], [0, 420, 200], [0, 0, 1]])
    return dict(name='CAM', lens='pinhole', lidar2cam=lidar2cam, cam2img=cam2img, height=400,
                width=640, **extra)


@pytest.mark.parametrize('xyz, pixel', [
    ((1, 0, 0), (1023.5, 511.5)),  # ahead: the centre
    ((0, -1, 0), (1535.5, 511.5)),  # right: right half
    ((0, 1, 0), (511.5, 511.5)),
    ((-1, -1e-9, 0), (2047.5, 511.5)),  # behind: the border
    ((1, 0, 1), (1023.5, 255.5)),  # 45 degrees up
])
def test_convention_equirect(xyz, pixel):
    got, depth, valid = project_equirect(torch.tensor(xyz, dtype=torch.float64), FULL_SPHERE,
                                         (1024, 2048))
    assert got.tolist() == pytest.approx(pixel, abs=1e-5)
    assert valid and depth.item() == pytest.approx(math.dist(xyz, (0, 0, 0)))


def test_equirect_round_trip():
    xyz = torch.randn(200, 3, dtype=torch.float64) * 20
    pixel, depth, _ = project_equirect(xyz, FULL_SPHERE, (512, 1024))
    torch.testing.assert_close(unproject_equirect(pixel, depth, FULL_SPHERE, (512, 1024)), xyz)


def test_pinhole_round_trip_and_validity():
    params = torch.tensor([400., 0, 320, 0, 420, 200, 0, 0, 1], dtype=torch.float64)
    xyz = torch.randn(200, 3, dtype=torch.float64) * 3
    xyz[:, 2] = xyz[:, 2].abs() + 0.5
    pixel, depth, valid = project_pinhole(xyz, params, (400, 640))
    torch.testing.assert_close(unproject_pinhole(pixel, depth, params, (400, 640)), xyz)
    assert valid.all()
    assert not project_pinhole(-xyz, params, (400, 640))[2].any()


@pytest.mark.parametrize('xyz', [(0, 0, 0), (0, 0, 5), (0, 0, -5), (-3, 0, 0), (-3, -0.0, 1),
                                 (1e-9, 0, 1), (2, 1, 0)])
def test_gradients_are_finite_at_singular_directions(xyz):
    point = torch.tensor(xyz, dtype=torch.float64, requires_grad=True)
    azimuth, elevation = azimuth_elevation(point)
    pixel, depth, _ = project_equirect(point, FULL_SPHERE, (64, 128))
    (azimuth + elevation + pixel.sum() + depth).backward()
    assert point.grad.isfinite().all()


def test_equirect_gradcheck():
    points = torch.tensor([[3., 1, 0.5], [-2, 0.3, -1], [0.1, -4, 2]], dtype=torch.float64,
                          requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda p: project_equirect(p, FULL_SPHERE, (64, 128))[0], points)


def test_pinhole_gradient_behind_the_camera_is_finite():
    points = torch.tensor([[1., 1, 0], [1, 1, -2]], requires_grad=True)
    params = torch.tensor([400., 0, 320, 0, 420, 200, 0, 0, 1])
    project_pinhole(points, params, (400, 640))[0].sum().backward()
    assert points.grad.isfinite().all()


@pytest.mark.parametrize('camera', [panorama(fov=40), pinhole()])
def test_rig_round_trip_through_both_augmentations(camera):
    angle = 0.3
    bev_aug = np.eye(4)
    bev_aug[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    bev_aug[1] *= -1
    camera = dict(camera, img_aug=np.array([[0.5, 0, -20], [0, 0.5, -10], [0, 0, 1]]),
                  raw_height=camera['height'], raw_width=camera['width'], height=100, width=300)
    rig = CameraRig.from_dicts([[camera]], [bev_aug])
    points = torch.tensor([[10., 2, 1], [6, -1, -1], [20, 3, 0.2]])
    pixel, depth, _ = rig.project(points)
    torch.testing.assert_close(rig.unproject(pixel, depth)[0, 0], points, atol=1e-4, rtol=1e-5)


def test_rig_order_is_undo_bev_then_extrinsics_then_lens_then_image():
    bev_aug = np.diag([1.0, -1.0, 1.0, 1.0])
    camera = dict(pinhole(), img_aug=np.array([[2.0, 0, 5], [0, 2, 7], [0, 0, 1]]), raw_height=400,
                  raw_width=640, height=800, width=1280)
    rig = CameraRig.from_dicts([[camera]], [bev_aug])
    pixel, depth, valid = rig.project(torch.tensor([[9.7, 1.1, 0.2]]))
    # By hand: y flips back to -1.1; camera (1.1 + 0.1, -0.2 + 0.2, 9.7 + 0.3) = (1.2, 0, 10);
    # raw pixel (400 * 0.12 + 320, 200) = (368, 200); augmented (741, 407).
    assert pixel[0, 0, 0].tolist() == pytest.approx([741.0, 407.0], abs=1e-3)
    assert depth.item() == pytest.approx(10.0) and valid.item()


def test_rig_validity_at_the_image_border():
    rig = CameraRig.from_dicts([[panorama(64, 2048, fov=22.5)]])
    _, _, valid = rig.project(torch.tensor([[10., 0, 4.1], [10, 0, 4.2], [-10, 0, 0], [0, 0, 3]]))
    assert valid[0, 0].tolist() == [True, False, True, False]  # tan 22.5 deg = 0.4142; seam wraps
    unbounded = rig.project(torch.tensor([[10., 0, 4.2]]), bounds=False)[2]
    assert unbounded.all()


def test_batch_of_equal_cameras_is_one_geometry():
    one = CameraRig.from_dicts([[panorama()]])
    three = CameraRig.from_dicts([[panorama()]] * 3)
    assert three.num_geometries == 1 and three.fingerprint == one.fingerprint
    moved = panorama()
    moved['lidar2cam'] = np.eye(4) + 0
    moved['lidar2cam'][2, 3] = 0.1
    mixed = CameraRig.from_dicts([[panorama()], [moved]])
    assert mixed.num_geometries == 2 and mixed.fingerprint != one.fingerprint


def test_projection_ignores_autocast():
    rig = CameraRig.from_dicts([[pinhole()]])
    points = torch.tensor([[33.3, 7.7, 1.1]])
    exact = rig.project(points)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(rig.project(points)[0], exact)


@pytest.mark.parametrize('change, message', [
    (dict(lens='fisheye'), "unknown lens 'fisheye'"),
    (dict(height=5), 'must share lens and image size'),
])
def test_bad_rigs_are_refused(change, message):
    cameras = [[dict(panorama(), **change)]] * (1 if 'lens' in change else 2)
    if 'height' in change:
        cameras[0] = [panorama()]
    with pytest.raises(ValueError, match=message):
        CameraRig.from_dicts(cameras)


def test_golden_camera_projection():
    grid = BEVGrid().with_levels((-6, 4), 8, '-z')
    position = build_pull_map(grid, CameraRig.from_dicts([[panorama()]])).position
    position = position.reshape(8, 200, 200, 2)
    golden = {
        (0, 4, 99): (-0.0015995, 0.0207865), (0, 4, 100): (0.0015995, 0.0207865),
        (199, 4, 99): (-0.9984004, 0.0207865), (199, 4, 100): (0.9984004, 0.0207865),
        (100, 4, 199): (0.5015995, 0.0207865), (80, 3, 90): (-0.1443022, 0.0220033),
        (80, 0, 90): (-0.1443022, -0.1920618), (99, 7, 99): (-0.25, 0.9581851)}
    for (row, level, col), expected in golden.items():
        assert position[level, row, col].tolist() == pytest.approx(expected, abs=2e-6)


def test_golden_lidar_image_projection():
    grid = BEVGrid().with_levels((-2, 2), 8, '+z')
    pull = build_pull_map(grid, CameraRig.from_dicts([[panorama(242, 2048, fov=22.5)]]))
    position = pull.position.reshape(8, 200, 200, 2)
    golden = {  # the release's (z forward, level, x left) before its flips
        (199, 3, 99): (0.0015995, 0.0127961), (120, 1, 110): (-0.1506739, 0.2753218),
        (120, 6, 110): (-0.1506739, -0.2753218), (100, 3, 199): (-0.4984004, 0.0127961)}
    for (ahead, level, left), expected in golden.items():
        found = position[level, 199 - ahead, 199 - left].tolist()
        assert found == pytest.approx(expected, abs=2e-6)
    assert pull.seen.mean().item() == pytest.approx(0.99765, abs=1e-5)
