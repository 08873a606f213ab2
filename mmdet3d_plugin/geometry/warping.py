"""Moving BEV maps from one time's frame to another's."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .bev_grid import BEVGrid
from .cameras import CameraRig, invert


def motion(rig: CameraRig, past: CameraRig) -> Tensor:
    """From a frame to that of an earlier time, both after BEV augmentation.

    A point p of the newest frame is at ``motion p`` in the frame of the earlier time, seen by the
    same cameras: ``lidar2cam^-1 past.lidar2cam`` of the first camera, whose calibration is taken
    to be constant.

    Args:
        rig (CameraRig): Of the newest time.
        past (CameraRig): Of the earlier time, with extrinsics from the newest frame.

    Returns:
        Tensor: (B or 1, 4, 4) float32.
    """
    return invert(rig.lidar2cam[:, 0]) @ past.lidar2cam[:, 0]


def warp_bev(bev: Tensor, grid: BEVGrid, transform: Tensor, pixel: str = 'center') -> Tensor:
    """A BEV map as seen from another frame: bilinear, zeros outside.

    Args:
        bev (Tensor): (B, C, rows, columns) on the cells of ``grid``.
        grid (BEVGrid): Of the map, in both frames.
        transform (Tensor): (B or 1, 4, 4) from the new frame to the map's; its height is dropped.
        pixel (str): Where a cell sits: at its ``'center'``, or as in BEVDet4D's release at the
            ``'corner'`` of lowest x and y, which moves a rotated map by up to half a cell.

    Returns:
        Tensor: (B, C, rows, columns), in the dtype of ``bev``.

    Raises:
        ValueError: ``pixel`` is unknown.
    """
    if pixel not in ('center', 'corner'):
        raise ValueError(f"pixel: expected 'center' or 'corner', got {pixel!r}")
    corner = -0.5 * grid.resolution if pixel == 'corner' else 0.0
    with torch.autocast(bev.device.type, enabled=False):
        xy = grid.centers_2d().to(transform) + corner
        rotation, translation = transform[:, :2, :2], transform[:, :2, 3]
        moved = xy.flatten(0, 1) @ rotation.transpose(1, 2) + translation[:, None]
        position = grid.to_pixel(moved.unflatten(1, grid.shape) - corner)
        row, col = position.unbind(-1)
        position = torch.stack([2 * col / grid.shape[1] - 1, 2 * row / grid.shape[0] - 1], -1)
        warped = F.grid_sample(bev.float(), position.expand(len(bev), -1, -1, -1),
                               mode='bilinear', padding_mode='zeros', align_corners=False)
    return warped.to(bev.dtype)
