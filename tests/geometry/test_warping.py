"""BEV maps that move to another frame."""
import numpy as np
import pytest
import torch

from mmdet3d_plugin.geometry import BEVGrid, CameraRig
from mmdet3d_plugin.geometry.rigid import rigid, yaw_matrix
from mmdet3d_plugin.geometry.warping import motion, warp_bev

GRIDS = [BEVGrid((-8, 8), (-8, 8), 1.0, rows=rows, cols=cols)
         for rows, cols in (('+y', '+x'), ('-x', '-y'), ('+x', '+y'))]
AHEAD = rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]])


def transform(matrix):
    return torch.tensor(matrix, dtype=torch.float32)[None]


def blob(grid, x, y):
    """A map with 1 in the cell of a place."""
    bev = torch.zeros(1, 1, *grid.shape)
    (row, col), _ = grid.to_index(torch.tensor([x, y]))
    bev[0, 0, row, col] = 1
    return bev


@pytest.mark.parametrize('pixel', ['center', 'corner'])
@pytest.mark.parametrize('grid', GRIDS)
def test_a_place_ahead_comes_nearer_while_the_car_drives(grid, pixel):
    """The car drove 3 m ahead: what was at x = 5.5 is at 2.5."""
    past = blob(grid, 5.5, 1.5)
    now = warp_bev(past, grid, transform(rigid(translation=(3, 0, 0))), pixel)
    torch.testing.assert_close(now, blob(grid, 2.5, 1.5), rtol=0, atol=1e-6)


@pytest.mark.parametrize('grid', GRIDS)
def test_a_rotation_about_the_origin_keeps_the_grid(grid):
    past = blob(grid, 5.5, 1.5)
    now = warp_bev(past, grid, transform(yaw_matrix(np.pi / 2)))
    torch.testing.assert_close(now, blob(grid, 1.5, -5.5), rtol=0, atol=1e-5)
    corner = warp_bev(past, grid, transform(yaw_matrix(np.pi / 2)), 'corner')
    torch.testing.assert_close(corner, blob(grid, 1.5, -4.5), rtol=0, atol=1e-5)


def test_outside_is_zero_and_dtype_and_gradient_pass():
    grid = GRIDS[0]
    past = torch.ones(2, 3, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    now = warp_bev(past, grid, transform(rigid(translation=(6, 0, 0))))
    assert now.dtype == torch.bfloat16
    assert now[0, 0, 0].tolist() == [1.0] * 10 + [0.0] * 6
    now.sum().backward()
    assert past.grad[0, 0, 0].tolist() == [0.0] * 6 + [1.0] * 10
    with pytest.raises(ValueError, match="pixel: expected 'center' or 'corner', got 'edge'"):
        warp_bev(past, grid, transform(np.eye(4)), 'edge')


def test_the_motion_is_that_of_the_frames_whatever_the_augmentation():
    then2now = yaw_matrix(0.2) @ rigid(translation=(-3, 0.5, 0.1))
    calibration = AHEAD @ rigid(translation=(-1, 0.2, -0.4))
    aug = yaw_matrix(0.5) @ np.diag([1.05, -1.05, 1.05, 1])

    def rig(lidar2cam):
        return CameraRig.from_dicts([[dict(name='0', lens='pinhole', height=4, width=4,
                                           cam2img=np.eye(3), lidar2cam=lidar2cam)]], [aug])
    found = motion(rig(calibration), rig(calibration @ np.linalg.inv(then2now)))
    expected = aug @ np.linalg.inv(then2now) @ np.linalg.inv(aug)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
