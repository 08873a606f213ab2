"""Images of several cameras: augmentation, and what follows it."""
import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints
from PIL import Image

from mmdet3d_plugin.datasets.transforms import GlobalRotScaleTransFlip, ImageAug3D, LoadSweeps
from mmdet3d_plugin.datasets.transforms.formatting import augmented_boxes
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import CameraRig, rigid

AHEAD = rigid.rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]])


def frame(height=90, width=160):
    """A smooth image whose colours say where one is, and its camera."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, np.full(x.shape, 200)], -1)
    camera = dict(name='front', lens='pinhole', lidar2cam=AHEAD, height=height, width=width,
                  img_aug=np.eye(3), cam2img=[[100.0, 0, 79.5], [0, 100, 44.5], [0, 0, 1]])
    return dict(img=[image.astype(np.uint8)] * 2, cameras=[camera, dict(camera, name='other')])


def raw_position(image):
    """Raw (column, row) that each pixel shows, by its colours."""
    return image[..., 0] * 160 / 255, image[..., 1] * 90 / 255


@pytest.mark.parametrize('release', [False, True])
def test_matrix_says_what_each_pixel_shows(release):
    torch.manual_seed(3)
    errors = []
    for _ in range(10):
        out = ImageAug3D((40, 64), (0.5, 0.7), release=release, relative=False)(frame())
        for image, camera in zip(out['img'], out['cameras']):
            assert image.shape == (40, 64, 3) and (camera['raw_height'], camera['width']) == (
                90, 64)
            row, col = np.nonzero(image[..., 2] > 195)      # not black
            assert len(row) > 1800
            raw = np.linalg.inv(camera['img_aug']) @ np.stack([col, row, np.ones_like(row)])
            shown = [values[row, col] for values in raw_position(image.astype(float))]
            errors.append(np.stack(shown) - raw[:2])
    worst = np.abs(np.concatenate(errors, 1).mean(1)).max()
    # exact to the rounding of colours; the release's matrices are off by half a pixel
    assert worst < 0.35 if not release else 0.35 < worst < 1.5
    assert not np.allclose(out['cameras'][0]['img_aug'], out['cameras'][1]['img_aug'])


def test_without_chance_it_is_the_middle():
    out = ImageAug3D((40, 64), 0.6, random=False, relative=False)(frame())
    scale, offset = 96 / 160, (96 / 160 - 1) / 2
    np.testing.assert_allclose(out['cameras'][0]['img_aug'], [
        [scale, 0, offset - 16], [0, scale, offset - 14], [0, 0, 1]], atol=1e-12)


def test_release_follows_pil_and_its_matrix():
    torch.manual_seed(0)
    transform = ImageAug3D((40, 64), (0.5, 0.7), release=True, relative=False)
    transform._draw = lambda: (0.55, 0.5, True, 5.0)
    out = transform(frame())
    image = Image.fromarray(frame()['img'][0]).resize((88, 49), Image.BICUBIC)
    image = image.crop((12, 9, 76, 49)).transpose(Image.FLIP_LEFT_RIGHT).rotate(5.0)
    np.testing.assert_array_equal(out['img'][0], np.array(image))
    cos, sin = np.cos(np.deg2rad(5)), np.sin(np.deg2rad(5))
    flipped = np.array([[-0.55, 0, 64 + 12], [0, 0.55, -9]])
    turn, middle = np.array([[cos, sin], [-sin, cos]]), np.array([32, 20])
    expected = np.c_[turn @ flipped[:, :2], turn @ (flipped[:, 2] - middle) + middle]
    np.testing.assert_allclose(out['cameras'][0]['img_aug'][:2], expected, atol=1e-12)


def test_resize_errors():
    with pytest.raises(UserError, match='ImageAug3D.resize: expected a factor'):
        ImageAug3D(resize=(0.5, 0.4))


@pytest.mark.parametrize('height, width', [(90, 160), (900, 1600)])
def test_convention_a_resize_of_one_covers_the_result(height, width):
    """40 x 64 of 90 x 160 are covered at 40 rows; 1.25 times that is 50 rows and 88 columns."""
    image = np.full((height, width, 3), 200, np.uint8)
    camera = dict(frame()['cameras'][0], height=height, width=width)
    out = ImageAug3D((40, 64), 1.25, random=False)(dict(img=[image], cameras=[camera]))
    x, y = 88 / width, 50 / height
    np.testing.assert_allclose(out['cameras'][0]['img_aug'], [
        [x, 0, (x - 1) / 2 - 12], [0, y, (y - 1) / 2 - 10], [0, 0, 1]], atol=1e-12)
    assert (out['img'][0] == 200).all()


def test_the_default_is_bevfusions_of_900_x_1600():
    relative = ImageAug3D(random=False)
    assert [relative.factor_of((900, 1600), value) for value in relative.resize] == pytest.approx(
        [0.38, 0.55])
    assert ImageAug3D(resize=0.48 / 0.44).layout((900, 1600), relative.factor_of(
        (900, 1600), 0.48 / 0.44)) == ((768, 432), (32, 176))


@pytest.mark.parametrize('resize, lowest, highest, test', [
    ((0.38 / 0.44, 0.55 / 0.44), (608, 342), (880, 495), (0.48 / 0.44, (768, 432), (32, 176))),
    ((0.386 / 0.44, 0.55 / 0.44), (617, 347), (880, 495), (1.0, (704, 396), (0, 140)))],
    ids=['bevdet', 'bevdepth'])
def test_the_ranges_of_bevdet_and_bevdepth(resize, lowest, highest, test):
    """704 / 1600 + U(-0.06, 0.11), test 0.48; U(0.386, 0.55), test 0.44; the lower 256 rows."""
    augment = ImageAug3D((256, 704), resize)
    factors = [augment.factor_of((900, 1600), value) for value in augment.resize]
    layouts = [augment.layout((900, 1600), factor, 1.0) for factor in factors]
    assert layouts[0] == (lowest, (0, lowest[1] - 256))             # narrower: black on the right
    assert layouts[1] == (highest, (highest[0] - 704, highest[1] - 256))
    value, size, corner = test
    middle = ImageAug3D((256, 704), value, random=False)
    assert middle._draw() == (value, 0.5, False, 0.0)
    assert middle.layout((900, 1600), middle.factor_of((900, 1600), value)) == (size, corner)
    torch.manual_seed(0)
    scale, shift, flip, degrees = np.array([augment._draw() for _ in range(400)]).T
    assert resize[0] <= scale.min() < scale.max() <= resize[1] and 0 <= shift.min() < 0.02
    assert 160 < flip.sum() < 240 and 5.3 < np.abs(degrees).max() <= 5.4


@pytest.mark.parametrize('size, resize, relative, message', [
    ((900, 1600), 0.9, False, r'size=\(64, 160\) with a factor of 0.9 keeps 0.9% of an image of '
     '1600x900; set relative=True and resize near 1'),
    ((90, 160), 0.2, False, 'fills 5.6% of the result by an image of 160x90'),
    ((90, 160), 4.0, True, 'keeps 4.4% of an image of 160x90; choose resize near 1')])
def test_little_of_an_image_is_an_error(size, resize, relative, message):
    transform = ImageAug3D((64, 160), resize, random=False, relative=relative)
    with pytest.raises(UserError, match=message):
        transform(frame(*size))


# The scene ----------------------------------------------------------------------------------------


def scene():
    points = torch.tensor([[10.0, 2.0, -1.0, 0.5], [20.0, -3.0, 0.5, 0.7]])
    boxes = LiDARInstance3DBoxes([[10.0, 2.0, -1.0, 4.0, 2.0, 1.5, 0.3]], origin=(0.5, 0.5, 0.5))
    return dict(frame(), points=LiDARPoints(points, points_dim=4),
                ann_info=dict(gt_bboxes_3d=boxes, gt_labels_3d=np.array([0])))


def test_points_boxes_and_rig_move_together():
    torch.manual_seed(1)
    flipped = 0
    for _ in range(8):
        results = GlobalRotScaleTransFlip()(scene())
        bev_aug = results['bev_aug']
        points = results['points'].tensor
        np.testing.assert_allclose(
            points[:, :3], rigid.apply(bev_aug, scene()['points'].tensor[:, :3].double().numpy()),
            atol=1e-5)
        assert torch.equal(points[:, 3], torch.tensor([0.5, 0.7]))
        before, after = (CameraRig.from_dicts([results['cameras']], aug)
                         for aug in (None, [bev_aug]))
        np.testing.assert_allclose(after.project(points[:, :3])[0],
                                   before.project(scene()['points'].tensor[:, :3])[0], atol=1e-3)
        box, _ = augmented_boxes(results)
        inside = rigid.points_in_boxes(points.numpy(), box)
        assert inside.tolist() == [[True, False]]
        scale = abs(np.linalg.det(bev_aug[:3, :3])) ** (1 / 3)
        assert 0.9 <= scale <= 1.1 and box[0, 3] == pytest.approx(4 * scale)
        flipped += np.linalg.det(bev_aug[:3, :3]) < 0
    assert 0 < flipped < 8


def test_bev_aug_is_rotation_then_translation_then_scale_then_flip():
    torch.manual_seed(0)
    draws = torch.rand(1), torch.rand(1), torch.randn(3).double(), torch.rand(2)
    torch.manual_seed(0)
    bev_aug = GlobalRotScaleTransFlip(flip=(1, 0))(dict())['bev_aug']
    scale, yaw = 0.9 + 0.2 * float(draws[0]), np.pi / 4 * (2 * float(draws[1]) - 1)
    p = np.array([1.0, 2.0, 3.0])
    turned = [p[0] * np.cos(yaw) - p[1] * np.sin(yaw), p[0] * np.sin(yaw) + p[1] * np.cos(yaw), 3]
    expected = scale * (np.array(turned) + 0.5 * draws[2].numpy()) * [-1, 1, 1]
    np.testing.assert_allclose(rigid.apply(bev_aug, p), expected, atol=1e-6)


def test_targets_come_after():
    with pytest.raises(UserError, match='GlobalRotScaleTransFlip: the targets are raster'):
        GlobalRotScaleTransFlip()(dict(gt_bev={}))


# Sweeps -------------------------------------------------------------------------------------------


def with_sweeps(folder, stored):
    sweeps = []
    for n in range(stored):
        path = folder / f'{n}.bin'
        np.array([[0.5, -0.9, 0, 1, 9], [2.0, 0.5, 0, n, 9]], '<f4').tofile(path)
        sweeps.append(dict(timestamp=100 - 0.05 * (n + 1), lidar_points=dict(
            lidar_path=str(path), num_pts_feats=5,
            scan2lidar=rigid.rigid(translation=(n + 1.0, 0, 0)).tolist())))
    points = torch.tensor([[0.1, 0.1, 0.0, 7.0], [5.0, 0.0, 0.0, 8.0]])
    return dict(points=LiDARPoints(points, points_dim=4), timestamp=100.0, lidar_sweeps=sweeps)


def test_nearest_sweeps_join_the_frame_with_their_age(tmp_path):
    out = LoadSweeps(2)(with_sweeps(tmp_path, 5))['points'].tensor
    torch.testing.assert_close(out, torch.tensor([
        [0.1, 0.1, 0, 7, 0], [5, 0, 0, 8, 0],  # the frame's own close points stay
        [3.0, 0.5, 0, 0, 0.05], [4.0, 0.5, 0, 1, 0.1]]), atol=1e-5, rtol=0)


def test_drawn_sweeps_are_different_ones(tmp_path):
    torch.manual_seed(0)
    taken = {tuple(LoadSweeps(2, random=True)(with_sweeps(tmp_path, 5))['points'].tensor[2:, 3]
                   .int().tolist()) for _ in range(20)}
    assert len(taken) > 5 and all(len(set(pair)) == 2 for pair in taken)


def test_a_frame_without_sweeps(tmp_path):
    assert len(LoadSweeps(3)(with_sweeps(tmp_path, 0))['points']) == 2
    padded = LoadSweeps(3, pad_empty=True)(with_sweeps(tmp_path, 0))['points'].tensor
    assert padded[2:].tolist() == [[5.0, 0.0, 0.0, 8.0, 0.0]] * 3
