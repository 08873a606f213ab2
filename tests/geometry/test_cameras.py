import math

import numpy as np
import pytest
import torch

from mmdet3d_plugin.geometry import BEVGrid, CameraRig, build_pull_map
from mmdet3d_plugin.geometry.cameras import Equirect, Pinhole, azimuth_elevation, lens_of
from tests.helpers.kitti360 import CAM0_TO_VELO, MEI, P_RECT_00, R_RECT_00, fisheye, matrix

FULL_SPHERE = Equirect(*torch.tensor([math.pi / 2, -math.pi / 2]))


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
    got, depth, valid = FULL_SPHERE.project(torch.tensor(xyz, dtype=torch.float64), (1024, 2048))
    assert got.tolist() == pytest.approx(pixel, abs=1e-5)
    assert valid and depth.item() == pytest.approx(math.dist(xyz, (0, 0, 0)))


def test_equirect_round_trip():
    xyz = torch.randn(200, 3, dtype=torch.float64) * 20
    pixel, depth, _ = FULL_SPHERE.project(xyz, (512, 1024))
    torch.testing.assert_close(FULL_SPHERE.unproject(pixel, depth, (512, 1024)), xyz)


def test_pinhole_round_trip_and_validity():
    lens = Pinhole(*torch.tensor([400., 0, 320, 0, 420, 200, 0, 0, 1], dtype=torch.float64))
    xyz = torch.randn(200, 3, dtype=torch.float64) * 3
    xyz[:, 2] = xyz[:, 2].abs() + 0.5
    pixel, depth, valid = lens.project(xyz, (400, 640))
    torch.testing.assert_close(lens.unproject(pixel, depth, (400, 640)), xyz)
    assert valid.all()
    assert not lens.project(-xyz, (400, 640))[2].any()


@pytest.mark.parametrize('xyz', [(0, 0, 0), (0, 0, 5), (0, 0, -5), (-3, 0, 0), (-3, -0.0, 1),
                                 (1e-9, 0, 1), (2, 1, 0)])
def test_gradients_are_finite_at_singular_directions(xyz):
    point = torch.tensor(xyz, dtype=torch.float64, requires_grad=True)
    azimuth, elevation = azimuth_elevation(point)
    pixel, depth, _ = FULL_SPHERE.project(point, (64, 128))
    (azimuth + elevation + pixel.sum() + depth).backward()
    assert point.grad.isfinite().all()


def test_equirect_gradcheck():
    points = torch.tensor([[3., 1, 0.5], [-2, 0.3, -1], [0.1, -4, 2]], dtype=torch.float64,
                          requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda p: FULL_SPHERE.project(p, (64, 128))[0], points)


def test_pinhole_gradient_behind_the_camera_is_finite():
    points = torch.tensor([[1., 1, 0], [1, 1, -2]], requires_grad=True)
    lens = Pinhole(*torch.tensor([400., 0, 320, 0, 420, 200, 0, 0, 1]))
    lens.project(points, (400, 640))[0].sum().backward()
    assert points.grad.isfinite().all()


@pytest.mark.parametrize('camera, names', [
    (panorama(), 'fov_up fov_down'), (pinhole(), 'fx skew cx k10 fy cy k20 k21 k22'),
    (fisheye(2), 'xi k1 k2 p1 p2 gamma1 gamma2 u0 v0 cos_theta_max rho2_max'),
    (dict(pinhole(), lens='equidistant', equidistant=dict(f=9.0, u0=1.0, v0=2.0)),
     'f u0 v0 theta_max')])
def test_params_are_named_in_the_order_of_exported_models(camera, names):
    rig = CameraRig.from_dicts([[camera]])
    assert rig.param_names == tuple(names.split())
    expected = lens_of(camera)._asdict()
    for name, column in zip(rig.param_names, rig.params[0, 0]):
        assert column == expected[name].float()


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


# MEI fisheye: values computed from KITTI-360's published calibration ------------------------------

MEI_GOLDEN = [  # velodyne point, camera, angle, pixel without and with the tangential terms
    ((0, 10, 0), 2, 2.57, (734.16, 713.02), (734.16, 713.02)),
    ((10, 10, 0), 2, 48.54, (1068.12, 716.33), (1068.24, 716.37)),
    ((-10, 10, 1), 2, 44.21, (398.63, 673.26), (398.73, 673.30)),
    ((0.5, 8, 3), 2, 21.40, (762.56, 557.55), (762.56, 557.56)),
    ((-20, 0, 0), 2, 89.19, (74.76, 704.01), (75.10, 704.12)),
    ((0, -10, 0), 3, 1.99, (687.85, 707.61), (687.84, 707.61)),
    ((10, -10, -1.5), 3, 48.00, (356.45, 759.23), (356.25, 759.36)),
    ((0.5, -8, -1.5), 3, 13.86, (661.07, 791.79), (661.05, 791.82)),
    ((20, 0, 0), 3, 92.39, (36.90, 713.26), (36.39, 713.59)),
]


def at_angle(theta_deg, around_deg=20.0, distance=7.0):
    theta, around = np.deg2rad(theta_deg), np.deg2rad(around_deg)
    ray = np.stack([np.sin(theta) * np.cos(around), np.sin(theta) * np.sin(around),
                    np.cos(theta)], -1)
    return torch.tensor(ray * distance)


@pytest.mark.parametrize('point, k, theta, plain, tangential', MEI_GOLDEN)
def test_golden_mei_pixels(point, k, theta, plain, tangential):
    for switch, expected in ((False, plain), (True, tangential)):
        camera = fisheye(k, tangential=switch)
        rig = CameraRig.from_dicts([[camera]])
        pixel, depth, valid = rig.project(torch.tensor([point], dtype=torch.float32))
        assert pixel.flatten().tolist() == pytest.approx(expected, abs=0.006) and valid.item()
        x, y, z = np.array(camera['lidar2cam'])[:3] @ [*point, 1]
        assert math.degrees(math.atan2(math.hypot(x, y), z)) == pytest.approx(theta, abs=0.006)
        assert depth.item() == pytest.approx(math.sqrt(x * x + y * y + z * z), rel=1e-6)


def test_golden_fisheye_extrinsics():
    golden = {2: [[0.999229, 0.036552, 0.014319, 0.029927],
                  [0.014585, -0.007023, -0.999869, 0.237043],
                  [-0.036447, 0.999307, -0.007551, -0.447279]],
              3: [[-0.999751, 0.019432, -0.010930, -0.057915],
                  [0.010975, 0.002235, -0.999937, 0.238607],
                  [-0.019407, -0.999809, -0.002448, -0.449613]]}
    for k, expected in golden.items():
        np.testing.assert_allclose(fisheye(k)['lidar2cam'][:3], expected, atol=6e-7)


def test_golden_rectified_pixels():
    rect = np.eye(4)
    rect[:3, :3] = np.reshape(R_RECT_00, (3, 3))
    camera = dict(pinhole(), lidar2cam=rect @ np.linalg.inv(matrix(CAM0_TO_VELO)), height=376,
                  cam2img=np.reshape(P_RECT_00, (3, 3)), width=1408)
    pixel, _, valid = CameraRig.from_dicts([[camera]]).project(
        torch.tensor([[20., 0, 0], [20, 5, -1.5]]))
    np.testing.assert_allclose(pixel[0, 0], [[714.95, 182.92], [572.44, 226.51]], atol=0.01)
    assert valid.all()


def test_points_beyond_the_one_to_one_limit_fold_back_but_are_not_valid():
    point = torch.tensor([[10., -10, -1.5]])  # 137.7 degrees from the left lens's axis
    for theta_max in (92.5, None):
        camera = fisheye(2, theta_max_deg=theta_max)
        pixel, _, valid = CameraRig.from_dicts([[camera]]).project(point, bounds=False)
        assert pixel.flatten().tolist() == pytest.approx((1360.4, 836.1), abs=0.1)
        assert not valid.item()


@pytest.mark.parametrize('k, limit, radii', [
    (2, 116.86, (72.6, 217.3, 325.7, 434.6, 543.6, 647.4, 663.2, 678.3, 705.7)),
    (3, 113.06, (72.9, 217.9, 326.1, 435.3, 545.2, 647.8, 662.8, 676.8, 701.1))])
def test_golden_mei_radius_and_limit(k, limit, radii):
    lens = lens_of(fisheye(k, theta_max_deg=None))
    angles = [10, 30, 45, 60, 75, 90, 92.5, 95, 100]
    pixel, _, valid = lens.project(at_angle(angles, 0), (0, 0))
    assert (pixel[:, 0] - lens.u0).tolist() == pytest.approx(radii, abs=0.06) and valid.all()
    valid = lens.project(at_angle([limit - 0.01, limit + 0.01]), (0, 0))[2]
    assert valid.tolist() == [True, False]
    valid = lens_of(fisheye(k)).project(at_angle([92.49, 92.51]), (0, 0))[2]
    assert valid.tolist() == [True, False]


@pytest.mark.parametrize('change', [
    dict(), dict(tangential=True), dict(mei=dict(MEI[2], xi=0.8, k2=0.01)),
    dict(mei=dict(MEI[2], k1=-0.3, k2=0.0))])
def test_mei_round_trip(change):
    camera = dict(fisheye(3, theta_max_deg=None), **change)
    angle = np.linspace(0, 105, 300)
    points = at_angle(angle, angle * 37, 5 + angle[:, None] / 10)
    lens = lens_of(camera)
    pixel, depth, valid = lens.project(points, (1400, 1400))
    assert valid[:200].all()
    back = lens.unproject(pixel, depth, (1400, 1400))
    torch.testing.assert_close(back[valid], points[valid], atol=1e-7, rtol=1e-9)


def test_distortion_can_lower_the_one_to_one_limit():
    lens = lens_of(dict(fisheye(2, theta_max_deg=None), mei=dict(MEI[2], k1=-3.0, k2=0.0)))
    # 1 - 9 rho^2 = 0 at rho = 1/3
    xi = MEI[2]['xi']
    theta = np.rad2deg(np.arccos((xi + np.sqrt(1 + (1 - xi**2) / 9)) / (1 + 1 / 9) - xi))
    radius, _, valid = lens.project(at_angle([theta - 1, theta, theta + 1], 0), (0, 0))
    assert radius[1, 0] > max(radius[0, 0], radius[2, 0]) and valid.tolist()[::2] == [True, False]


@pytest.mark.parametrize('xyz', [(0, 0, 5), (0, 0, 0), (0, 0, -5), (1e-9, 0, 1), (3, -2, -0.1)])
@pytest.mark.parametrize('xi', [MEI[2]['xi'], 1.0, 0.5])
def test_mei_gradients_are_finite_at_singular_points(xyz, xi):
    point = torch.tensor(xyz, dtype=torch.float64, requires_grad=True)
    lens = lens_of(dict(fisheye(2, tangential=True), mei=dict(MEI[2], xi=xi)))
    pixel, depth, _ = lens.project(point, (1400, 1400))
    (pixel.sum() + depth).backward()
    assert point.grad.isfinite().all()


def test_mei_gradients_are_right_on_the_axis_and_off_it():
    lens = lens_of(fisheye(2, tangential=True))
    points = torch.tensor([[0., 0, 4], [1, -2, 3], [3, 1, -0.1]], dtype=torch.float64,
                          requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: lens.project(p, (0, 0))[:2], points)
    axis = torch.stack([lens.u0, lens.v0])
    pixels = torch.stack([axis, axis + 100, axis - 400]).requires_grad_()
    ranges = torch.tensor([2., 3, 4], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: lens.unproject(p, ranges, (0, 0)), pixels)


def test_a_pixel_outside_the_fisheye_image_gives_a_ray_at_its_limit():
    lens = lens_of(fisheye(2))
    pixel = torch.tensor([[716.94 + 2000, 705.76]], dtype=torch.float64, requires_grad=True)
    ray = lens.unproject(pixel, torch.ones(1), (0, 0))
    assert math.degrees(math.acos(ray[0, 2].item())) == pytest.approx(116.86, abs=0.01)
    ray.sum().backward()
    assert pixel.grad.isfinite().all()


@pytest.mark.parametrize('theta_max, closes_at', [(92.5, (28.5, -6.3)), (95.0, (7.5, -3.9))])
def test_golden_blind_wedges_between_the_lenses(theta_max, closes_at):
    """Ahead of and behind the car is a wedge that neither lens sees; where it closes."""
    rigs = [CameraRig.from_dicts([[fisheye(k, theta_max)]]) for k in (2, 3)]
    for x, sign in zip(closes_at, (1, -1)):
        lines = [[(x + sign * step, y, 0.235) for y in np.arange(-0.45, 0.45, 0.01)]
                 for step in (-0.3, 0.2)]
        seen = sum(rig.project(torch.tensor(lines).float().flatten(0, 1))[2] for rig in rigs)
        assert (seen > 0).reshape(2, -1).all(1).tolist() == [False, True]


# Equidistant fisheye ------------------------------------------------------------------------------

EQUIDISTANT = dict(lens='equidistant', equidistant=dict(f=100.0, u0=319.5, v0=239.5),
                   theta_max_deg=101.5)


def equidistant():
    return lens_of(EQUIDISTANT)


@pytest.mark.parametrize('xyz, pixel', [
    ((0, 0, 5), (319.5, 239.5)),  # the axis
    ((1, 0, 0), (319.5 + 50 * math.pi, 239.5)),  # 90 degrees to the right
    ((0, 2, 2), (319.5, 239.5 + 25 * math.pi)),  # 45 degrees down
    ((-3, 0, -math.sqrt(3)), (319.5 - 100 * math.pi * 2 / 3, 239.5)),  # 120 degrees to the left
])
def test_convention_equidistant(xyz, pixel):
    got, depth, valid = equidistant().project(torch.tensor(xyz, dtype=torch.float64), (480, 640))
    assert got.tolist() == pytest.approx(pixel, abs=1e-9)
    assert depth.item() == pytest.approx(math.dist(xyz, (0, 0, 0)))
    assert valid.item() == (xyz[2] >= 0)


def test_equidistant_round_trip_both_ways():
    torch.manual_seed(0)
    xyz = torch.randn(300, 3, dtype=torch.float64) * 9
    xyz[:3] = torch.tensor([[0, 0, 4.0], [1e-7, 0, 3], [0, -1e-5, 2]])
    pixel, depth, valid = equidistant().project(xyz, (480, 640))
    assert 100 < valid.sum() < 250
    back = equidistant().unproject(pixel, depth, (480, 640))
    torch.testing.assert_close(back[valid], xyz[valid], atol=1e-6, rtol=1e-9)
    again = equidistant().project(back, (480, 640))
    torch.testing.assert_close(again[0][valid], pixel[valid], atol=1e-6, rtol=0)


def test_equidistant_limit():
    angles = torch.deg2rad(torch.tensor([101.4, 101.6, 179.9], dtype=torch.float64))
    rays = torch.stack([angles.sin(), torch.zeros(3, dtype=torch.float64), angles.cos()], -1)
    pixel, depth, valid = equidistant().project(7 * rays, (480, 640))
    assert valid.tolist() == [True, False, False]
    limit = math.radians(101.5)
    at_limit = equidistant().unproject(pixel[1:], depth[1:], (480, 640))
    expected = [7 * math.sin(limit), 0, 7 * math.cos(limit)]
    assert at_limit.tolist() == [pytest.approx(expected)] * 2
    assert not equidistant().project(torch.zeros(3), (480, 640))[2]
    everything = lens_of(dict(lens='equidistant', equidistant=dict(f=1, u0=0, v0=0)))
    assert everything.project(7 * rays, (1, 1))[2].all()


@pytest.mark.parametrize('xyz', [(0, 0, 5), (0, 0, -5), (0, 0, 0), (1e-9, 0, 1), (3, 0, 0)])
def test_equidistant_gradients_are_finite(xyz):
    point = torch.tensor(xyz, dtype=torch.float64, requires_grad=True)
    pixel, depth, _ = equidistant().project(point, (480, 640))
    ray = equidistant().unproject(pixel, depth, (480, 640))
    (pixel.sum() + depth + ray.sum()).backward()
    assert point.grad.isfinite().all()


def test_equidistant_gradient_at_the_axis_is_that_of_a_pinhole():
    point = torch.tensor([0, 0, 5.0], dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(
        lambda p: equidistant().project(p, (480, 640))[0], point)
    torch.testing.assert_close(jacobian, torch.tensor(
        [[20.0, 0, 0], [0, 20, 0]], dtype=torch.float64), atol=1e-6, rtol=0)
    points = torch.tensor([[1.0, 2, 3], [0.1, -0.2, -1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda p: equidistant().project(p, (480, 640))[0], points)


def test_the_geometry_of_a_sample_has_its_augmentation():
    camera = dict(name='c', lens='pinhole', height=4, width=8, lidar2cam=np.eye(4),
                  cam2img=np.eye(3))
    augs = [np.eye(4), np.diag([1.0, -1, 1, 1])]
    rig = CameraRig.from_dicts([[camera]] * 2, augs)
    for n, aug in enumerate(augs):
        own = rig.geometry(n)
        np.testing.assert_array_equal(own.bev_aug, aug[None])
        np.testing.assert_array_equal(own.lidar2cam[0], np.linalg.inv(aug)[None])
