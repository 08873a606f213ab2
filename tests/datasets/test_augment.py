import copy
import math

import numpy as np
import pytest
import torch
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints

from mmdet3d_plugin.datasets.transforms.augment import RandomYaw, rotate
from mmdet3d_plugin.datasets.transforms.formatting import augmented_boxes
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import (
    BEVGrid,
    CameraRig,
    build_pull_map,
    occupied_voxels,
    pull_dense,
    rigid,
)

WIDTH, STEPS = 48, 16                                   # the LiDAR image has 16 columns
GRID = dict(x_range=(-16, 16), y_range=(-16, 16), resolution=1.0)
BOXES = np.array([[10, 4, -1, 4.5, 1.8, 1.5, 0.3], [-6, 0.2, -1, 4, 2, 1.6, 3.1],
                  [1, -9, -1, 9, 2.5, 3, 1.2]])
TILT = rigid.rigid([[1, 0, 0], [0, math.cos(.1), -math.sin(.1)], [0, math.sin(.1), math.cos(.1)]])
CONCENTRIC = {'same': np.eye(4), 'above': rigid.rigid(translation=(0, 0, -0.1234567890123)),
              'turned': rigid.yaw_matrix(0.7) @ rigid.rigid(translation=(0, 0, 0.3))}
OTHERS = {'beside': rigid.rigid(translation=(0.4, -0.2, 0.3)), 'tilted': TILT}


def equirect(height, width, lidar2cam, fov):
    return dict(name='p', lens='equirect', lidar2cam=lidar2cam, height=height, width=width,
                fov_up=math.radians(fov), fov_down=-math.radians(fov))


def frame(lidar2cam=CONCENTRIC['same']):
    rng = np.random.default_rng(0)
    inside = rng.uniform(-0.5, 0.5, (len(BOXES), 40, 3)) * BOXES[:, None, 3:6]
    inside = [rigid.apply(rigid.rigid(translation=box[:3]) @ rigid.yaw_matrix(box[6]), points)
              for box, points in zip(BOXES, inside)]
    points = np.concatenate([*inside, rng.normal(0, 6, (200, 3))]).astype(np.float32)
    boxes = LiDARInstance3DBoxes(BOXES.astype(np.float32), origin=(.5, .5, .5))
    return dict(
        img=[rng.integers(0, 256, (24, WIDTH, 3), np.uint8)],
        cameras=[equirect(24, WIDTH, lidar2cam, 90)],
        lidar_img=rng.random((2, 8, STEPS), np.float32),
        lidar_camera=equirect(8, STEPS, lidar2cam, 22.5),
        points=LiDARPoints(torch.from_numpy(points), points_dim=3),
        ann_info=dict(gt_bboxes_3d=boxes, gt_labels_3d=np.zeros(len(BOXES), np.int64)),
        classes=('car',))


def xyz(results):
    return results['points'].tensor.numpy()


def rigs(results):
    return [CameraRig.from_dicts([[camera]], [results.get('bev_aug', np.eye(4))])
            for camera in (results['cameras'][0], results['lidar_camera'])]


def motions():
    return pytest.mark.parametrize('step, flip', [
        (0, False), (1, False), (-7, False), (8, False), (0, True), (5, True)])


def test_convention_a_roll_to_the_right_turns_clockwise():
    before = dict(frame(), coverage=np.arange(24 * WIDTH).reshape(24, WIDTH))
    after = rotate(dict(before), STEPS // 4, STEPS)
    assert rigid.apply(after['bev_aug'], [[10., 0, 1]]).tolist() == [[0, -10, 1]]
    ahead, right = WIDTH // 2, WIDTH * 3 // 4
    np.testing.assert_array_equal(after['img'][0][:, right], before['img'][0][:, ahead])
    np.testing.assert_array_equal(after['coverage'][:, right], before['coverage'][:, ahead])
    np.testing.assert_array_equal(after['lidar_img'][..., 12], before['lidar_img'][..., 8])


def test_convention_flip_swaps_left_and_right():
    before, after = frame(), rotate(frame(), 0, STEPS, flip=True)
    assert rigid.apply(after['bev_aug'], [[10., 2, 1]]).tolist() == [[10, -2, 1]]
    np.testing.assert_array_equal(after['img'][0], before['img'][0][:, ::-1])


@motions()
@pytest.mark.parametrize('lidar2cam', [*CONCENTRIC.values(), *OTHERS.values()],
                         ids=[*CONCENTRIC, *OTHERS])
def test_every_point_sees_what_it_saw_before(lidar2cam, step, flip):
    before, after = frame(lidar2cam), rotate(frame(lidar2cam), step, STEPS, flip)
    images = [(f['img'][0], f['lidar_img'].transpose(1, 2, 0)) for f in (before, after)]
    for old_rig, new_rig, old, new in zip(rigs(before), rigs(after), *images):
        width = old.shape[1]
        a, depth, _ = old_rig.project(torch.from_numpy(xyz(before)))
        b, new_depth, _ = new_rig.project(torch.from_numpy(xyz(after)))
        torch.testing.assert_close(new_depth, depth, rtol=1e-4, atol=1e-4)
        a, b = a[0, 0].numpy(), b[0, 0].numpy()
        moved = (width - 1 - a[:, 0] if flip else a[:, 0]) + step * width // STEPS
        error = (b[:, 0] - moved + width / 2) % width - width / 2       # seam or not
        np.testing.assert_allclose(error, 0, atol=2e-3)
        np.testing.assert_allclose(b[:, 1], a[:, 1], atol=2e-3)
        sure = (np.abs(a % 1 - 0.5) > 0.01).all(1) & (np.round(a[:, 1]) < old.shape[0]) & (
            a[:, 1] > -0.5)
        (u, v), (new_u, new_v) = (np.round(p[sure]).astype(int).T for p in (a, b))
        assert sure.sum() > 100
        np.testing.assert_array_equal(new[new_v, new_u % width], old[v, u % width])


@motions()
def test_points_stay_in_their_boxes(step, flip):
    before, after = frame(), rotate(frame(), step, STEPS, flip)
    inside = [rigid.points_in_boxes(xyz(f), augmented_boxes(f)[0], margin=1e-4)
              for f in (before, after)]
    assert (inside[0].sum(1) >= 40).all()
    np.testing.assert_array_equal(*inside)


@pytest.mark.parametrize('lidar2cam', CONCENTRIC.values(), ids=CONCENTRIC)
def test_a_concentric_rig_is_bit_identical_whatever_the_motion(lidar2cam):
    still = [rig.fingerprint for rig in rigs(frame(lidar2cam))]
    for step in range(-STEPS // 2, STEPS // 2):
        for flip in ((False, True) if lidar2cam[0, 1] == 0 else (False,)):
            moved = rigs(rotate(frame(lidar2cam), step, STEPS, flip))
            assert [rig.fingerprint for rig in moved] == still
    cameras = [rotate(frame(lidar2cam), step, STEPS) for step in (3, 4, 5)]
    batch = CameraRig.from_dicts([f['cameras'] for f in cameras], [f['bev_aug'] for f in cameras])
    assert batch.num_geometries == 1 and batch.fingerprint == still[0]


@pytest.mark.parametrize('lidar2cam', OTHERS.values(), ids=OTHERS)
def test_other_rigs_change_with_the_motion(lidar2cam):
    prints = {rigs(rotate(frame(lidar2cam), step, STEPS))[0].fingerprint for step in range(STEPS)}
    assert len(prints) == STEPS


def test_targets_are_those_of_the_moved_boxes():
    moved = rigid.transform_boxes(rigid.yaw_matrix(-2 * math.pi * 3 / STEPS), BOXES)
    expected = frame()
    expected['ann_info']['gt_bboxes_3d'] = LiDARInstance3DBoxes(moved.astype(np.float32),
                                                                origin=(.5, .5, .5))
    rasterize = TRANSFORMS.build(dict(type='RasterizeBEV', grid=GRID, classes=[['car']]))
    expected = rasterize(expected)['gt_bev']
    found = rasterize(rotate(frame(), 3, STEPS))['gt_bev']
    for name in ('seg', 'centerness', 'offset'):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    assert found['seg'].sum() > 30


@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_quarter_turns_turn_every_map_exactly(quarters):
    """Targets, occupied voxels and pulled features are those of the frame, turned."""
    grid = BEVGrid(**GRID).with_levels((-4, 4), 4)
    rasterize = TRANSFORMS.build(dict(type='RasterizeBEV', grid=GRID, classes=[['car']]))
    maps = []
    for results in (frame(), rotate(frame(), quarters * STEPS // 4, STEPS)):
        occupied = torch.zeros(4 * 32 * 32)
        occupied[occupied_voxels(results['points'].tensor, grid)] = 1
        features = torch.from_numpy(results['img'][0].transpose(2, 0, 1)[None, None].copy())
        pulled = pull_dense(features.float(), build_pull_map(grid, rigs(results)[0]), (4, 32, 32),
                            wrap=True)
        targets = rasterize(results)['gt_bev']
        maps.append([targets['seg'], targets['centerness'], occupied.reshape(4, 32, 32), pulled[0]])
    for old, new, tolerance in zip(*maps, (0, 1e-6, 0, 0.02)):
        np.testing.assert_allclose(new, np.rot90(old, -quarters, (1, 2)), atol=tolerance)


def test_no_motion_changes_nothing():
    before, after = frame(), RandomYaw(max_deg=0)(frame())
    assert (after['bev_aug'] == np.eye(4)).all()
    np.testing.assert_array_equal(after['img'], before['img'])
    np.testing.assert_array_equal(after['lidar_img'], before['lidar_img'])
    assert torch.equal(after['points'].tensor, before['points'].tensor)
    assert rigs(after)[0].fingerprint == rigs(before)[0].fingerprint


@motions()
def test_rotations_compose_and_can_be_undone(step, flip):
    before = frame(OTHERS['beside'])
    back = step if flip else -step                    # a flipped turn is its own inverse
    after = rotate(rotate(copy.deepcopy(before), step, STEPS, flip), back, STEPS, flip)
    np.testing.assert_allclose(after['bev_aug'], np.eye(4), atol=1e-14)
    np.testing.assert_array_equal(after['img'], before['img'])
    np.testing.assert_array_equal(after['lidar_img'], before['lidar_img'])
    np.testing.assert_allclose(xyz(after), xyz(before), atol=1e-5)
    assert rigs(after)[0].fingerprint == rigs(before)[0].fingerprint


def test_pinholes_stay_and_their_rig_follows():
    lidar2cam = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]])
    camera = dict(name='c', lens='pinhole', lidar2cam=lidar2cam, height=24, width=48,
                  cam2img=[[30, 0, 24], [0, 30, 12], [0, 0, 1]])
    before = dict(frame(), cameras=[camera])
    after = rotate(dict(frame(), cameras=[camera]), 5, STEPS, flip=True)
    np.testing.assert_array_equal(after['img'], before['img'])
    old, new = (rigs(f)[0].project(torch.from_numpy(xyz(f)))[0] for f in (before, after))
    torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-3)


def test_other_columns_of_the_points_and_the_input_stay():
    results = frame()
    values = torch.cat([results['points'].tensor, torch.arange(320.)[:, None]], 1)
    results['points'] = LiDARPoints(values.clone(), points_dim=4)
    given = results['points']
    after = rotate(results, 3, STEPS)
    assert torch.equal(given.tensor, values) and torch.equal(after['points'].tensor[:, 3],
                                                             values[:, 3])


def angles(transform, number=300, **sensors):
    for _ in range(number):
        motion = transform(dict(sensors))['bev_aug']
        yield math.degrees(math.atan2(motion[1, 0], motion[0, 0])), np.linalg.det(motion)


def test_draws_are_whole_common_columns_from_torchs_generator():
    torch.manual_seed(0)
    first, second = RandomYaw()(frame())['bev_aug'], RandomYaw()(frame())['bev_aug']
    torch.manual_seed(0)
    assert (RandomYaw()(frame())['bev_aug'] == first).all() and (first != second).any()
    camera = dict(frame(), cameras=[equirect(8, 24, np.eye(4), 90)],
                  img=[np.zeros((8, 24, 3), np.uint8)])       # 24 and 16 columns share 8
    steps = {round(angle / 45, 6) % 8 for angle, _ in angles(RandomYaw(), **camera)}
    assert steps == set(range(8))


def test_draws_stay_within_the_limits():
    torch.manual_seed(0)
    drawn, signs = zip(*angles(RandomYaw(max_deg=10, flip=0.5)))      # no panorama
    unflipped = [angle for angle, sign in zip(drawn, signs) if sign > 0]
    assert 9 < max(unflipped) <= 10 and -10 <= min(unflipped) < -9
    assert 100 < sum(sign < 0 for sign in signs) < 200
    assert all(sign == pytest.approx(1) for _, sign in angles(RandomYaw()))


def test_misuse_is_refused():
    with pytest.raises(UserError, match='put it before RasterizeBEV'):
        RandomYaw()(dict(frame(), gt_bev={}))
    cut = equirect(24, 40, np.eye(4), 90) | dict(raw_width=48, img_aug=np.eye(3))
    with pytest.raises(UserError, match='the image of p is not its whole 360-degree panorama'):
        RandomYaw()(dict(frame(), cameras=[cut]))
    for kwargs in (dict(max_deg=270), dict(flip=2)):
        with pytest.raises(UserError, match=f'{next(iter(kwargs))}: expected'):
            RandomYaw(**kwargs)


def test_resized_panoramas_are_rolled():
    camera = equirect(24, WIDTH, np.eye(4), 90) | dict(
        raw_width=2 * WIDTH, raw_height=48, img_aug=np.diag([.5, .5, 1]))
    before, after = dict(frame(), cameras=[camera]), RandomYaw()(dict(frame(), cameras=[camera]))
    assert rigs(after)[0].fingerprint == rigs(before)[0].fingerprint
