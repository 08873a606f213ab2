"""Cameras of two times in the forms of the releases and in ours."""
import math

import numpy as np
import torch

from mmdet3d_plugin.geometry import CameraRig
from mmdet3d_plugin.geometry.rigid import rigid, yaw_matrix

RAW = (180, 300)  # (H, W)
_CAMERA = rigid([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], (0.5, 0.1, 1.4))  # looks along x


def draw(seed, size, views=2, batch=2):
    """Augmented cameras of ``batch`` samples and two times.

    Returns:
        dict: float64 arrays ``sensor2ego`` (B, 2, N, 4, 4) to the newest frame before the BEV
        augmentation, ``intrin`` and ``ida`` (B, 2, N, 4, 4), ``bda`` (B, 4, 4).
    """
    random = np.random.default_rng(seed)
    mats = {name: np.tile(np.eye(4), (batch, 2, views, 1, 1))
            for name in ('sensor2ego', 'intrin', 'ida')}
    mats['bda'] = np.tile(np.eye(4), (batch, 1, 1))
    for b in range(batch):
        flip = np.diag([1, -1.0 if b else 1, 1, 1])
        mats['bda'][b] = flip @ np.diag([1.04 - 0.07 * b] * 3 + [1]) @ yaw_matrix(0.3 - b)
        motion = yaw_matrix(random.uniform(-0.1, 0.1)) @ rigid(
            translation=(-random.uniform(1, 3), random.uniform(-0.4, 0.4), 0))
        for n in range(views):
            pose = yaw_matrix(random.uniform(-0.2, 0.2) + 2.4 * n) @ _CAMERA
            mats['sensor2ego'][b, :, n] = pose, motion @ pose
            mats['intrin'][b, :, n, :3, :3] = [[random.uniform(100, 130), 0, 148],
                                               [0, random.uniform(100, 130), 92], [0, 0, 1]]
            factor, angle = random.uniform(0.36, 0.46), math.radians(random.uniform(-5, 5))
            cos, sin = math.cos(angle) * factor, math.sin(angle) * factor
            mirror = -1.0 if n and b else 1.0
            mats['ida'][b, :, n, :2, :2] = np.array([[cos, sin], [-sin, cos]]) @ np.diag(
                [mirror, 1])
            middle = mats['ida'][b, 0, n, :2, :2] @ (RAW[1] / 2, RAW[0] / 2)
            mats['ida'][b, :, n, :2, 3] = np.array(size[::-1]) / 2 - middle + random.uniform(
                -4, 4, 2)
    return mats


def tensors(mats):
    """The same as float32 tensors."""
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in mats.items()}


def rigs(mats, size):
    """Ours, newest first."""
    found = []
    for t in range(2):
        cameras = [[dict(
            name=str(n), lens='pinhole', height=size[0], width=size[1], raw_height=RAW[0],
            raw_width=RAW[1], cam2img=mats['intrin'][b, t, n, :3, :3],
            lidar2cam=np.linalg.inv(mats['sensor2ego'][b, t, n]),
            img_aug=mats['ida'][b, t, n][:2, [0, 1, 3]].tolist() + [[0, 0, 1]])
            for n in range(mats['intrin'].shape[2])] for b in range(len(mats['bda']))]
        found.append(CameraRig.from_dicts(cameras, mats['bda']))
    return found
