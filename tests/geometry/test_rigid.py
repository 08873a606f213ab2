import doctest

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mmdet3d_plugin.geometry import lidar_image, panorama, rigid


def random_rigid(seed):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return rigid.rigid(rotation, rng.normal(size=3))


@pytest.mark.parametrize('module', [rigid, panorama, lidar_image])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_inverse_undoes_and_refuses_shear():
    matrix = np.stack([random_rigid(0), random_rigid(1)])
    product = rigid.inverse(matrix) @ matrix
    np.testing.assert_allclose(product, np.stack([np.eye(4)] * 2), atol=1e-12)
    with pytest.raises(ValueError, match='not orthonormal'):
        rigid.inverse(np.diag([1, 2, 1, 1.]))
    with pytest.raises(ValueError, match='not orthonormal'):
        rigid.inverse(np.full((4, 4), np.nan))


def test_convention_column_vectors_and_dtype():
    out = rigid.apply(rigid.rigid(translation=[1, 2, 3]), np.zeros((2, 1, 3), np.float32))
    assert out.dtype == np.float32 and out.shape == (2, 1, 3)
    a, b = random_rigid(2), random_rigid(3)
    point = np.array([[0.3, -1, 2]])
    np.testing.assert_allclose(rigid.apply(a @ b, point), rigid.apply(a, rigid.apply(b, point)))


def test_convention_corner_order():
    corners = rigid.box_corners([[1, 2, 3, 4, 2, 1, np.pi / 2]])[0]
    # heading +y: front-left is at smaller x, larger y
    np.testing.assert_allclose(corners[0], [0, 4, 2.5], atol=1e-12)
    np.testing.assert_allclose(corners[1], [2, 4, 2.5], atol=1e-12)
    np.testing.assert_allclose(corners[4:] - corners[:4], np.tile([0, 0, 1], (4, 1)), atol=1e-12)
    assert rigid.box_corners(np.zeros((0, 7))).shape == (0, 8, 3)


@pytest.mark.parametrize('matrix', [rigid.yaw_matrix(0.7), np.diag([1, -1, 1, 1.]),
                                    rigid.rigid(np.eye(3) * 1.1, [1, 2, 0]),
                                    np.diag([-1, 1, 1, 1.]) @ rigid.yaw_matrix(-2)])
def test_convention_transformed_boxes_have_transformed_corners(matrix):
    box = np.array([[3, -2, 1, 4.5, 1.8, 1.5, 0.4, 9]])
    moved = rigid.transform_boxes(matrix, box)
    expected = rigid.apply(matrix, rigid.box_corners(box))[0]
    distance = np.linalg.norm(rigid.box_corners(moved)[0][:, None] - expected[None], axis=-1)
    np.testing.assert_allclose(distance.min(1), 0, atol=1e-9)       # same set of corners
    front = rigid.box_corners(moved)[0, [0, 1]].mean(0)
    np.testing.assert_allclose(front, expected[[0, 1]].mean(0), atol=1e-9)
    assert moved[0, 7] == 9 and box[0, 0] == 3


def test_velocities_are_turned_flipped_and_scaled_with_their_boxes():
    box = [[3, -2, 1, 4.5, 1.8, 1.5, 0.4, 2, 1, 7], [0, 0, 0, 1, 1, 1, 0, np.nan, np.nan, 8]]
    turn = rigid.rigid(translation=(5, 6, 7)) @ rigid.yaw_matrix(np.pi / 2)
    moved = rigid.transform_boxes(np.diag([2, -2, 2, 1.]) @ turn, box)
    np.testing.assert_allclose(moved[0, 7:], [-2, -4, 7], atol=1e-12)
    assert np.isnan(moved[1, 7:9]).all() and moved[1, 9] == 8


def test_headings_and_velocities_come_back_from_a_tilted_frame():
    """Upright boxes of the world: what is horizontal there is not in the frame, but z is known."""
    tilt = Rotation.from_euler('xyz', [0.1, -0.2, 0.8]).as_matrix()
    world2frame = rigid.rigid(tilt, (10, 20, 1))
    frame2world = np.linalg.inv(world2frame)
    world = np.array([[3, -2, 1, 4.5, 1.8, 1.5, yaw, 6 * np.cos(yaw), 6 * np.sin(yaw)]
                      for yaw in np.linspace(-3, 3, 7)])
    inside = rigid.transform_boxes(world2frame, world)
    back = rigid.transform_boxes(frame2world, inside, frame2world[2, :3])
    np.testing.assert_allclose(back, world, atol=1e-12)
    np.testing.assert_allclose(inside[0, 7:], (tilt @ [*world[0, 7:], 0])[:2], atol=1e-12)
    assert np.abs(rigid.transform_boxes(frame2world, inside) - world)[:, 6].max() > 0.01


def test_points_in_boxes_counts_faces_as_inside():
    points = [[0, 0, 0], [2, 0, 0], [2.01, 0, 0], [0, 1.01, 0], [0, 0, .5]]
    inside = rigid.points_in_boxes(points, [[0, 0, 0, 4, 2, 1, 0]])
    np.testing.assert_array_equal(inside, [[True, True, False, False, True]])
    assert rigid.points_in_boxes(points, [[0, 0, 0, 4, 2, 1, 0]], margin=0.02).all()
    assert rigid.points_in_boxes(points, np.zeros((0, 7))).shape == (0, 5)
