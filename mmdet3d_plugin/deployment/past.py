"""Deployed view transforms of models that read past images: what was predicted then is an input."""
from typing import Dict, Tuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..geometry import CameraRig
from ..geometry.warping import warp_bev
from ..models import LiftSplat, TemporalCameraBranch
from .views import DynamicLift, build_view


def build_past(branch: TemporalCameraBranch, rig: CameraRig, size: Tuple[int, int],
               form: str) -> nn.Module:
    """The view transform of all times of a branch.

    Args:
        branch: Whose parts are used.
        rig: Of one geometry, of the newest images.
        size: (h, w) of the features.
        form: See :func:`.views.build_view`; of the newest time.

    Raises:
        UserError: It cannot be deployed.
    """
    if not isinstance(branch.view_transform, LiftSplat):
        raise UserError('only models with LiftSplat are deployed with past images, not with '
                        f'{type(branch.view_transform).__name__}')
    return (_Lifted if branch.align == 'lift' else _Warped)(branch, rig, size, form)


class _Past(nn.Module):
    """The maps of all times, newest first, and what the next frame needs of this one.

    Attributes:
        state (dict): Names and shapes of what was predicted at the past times, which are inputs;
            the output ``next_NAME`` has the same of this frame, for one time.
        motion (dict): Name and shape of the input that says how the vehicle moved.
    """
    state: Dict[str, Tuple[int, ...]]
    motion: Dict[str, Tuple[int, ...]]

    def __init__(self, branch, rig, size, form):
        super().__init__()
        self.view = build_view(branch, rig, size, form)
        self.pre_process = branch.pre_process
        self.times = branch.num_past

    def process(self, bev: Tensor) -> Tensor:
        if self.pre_process is None:
            return bev
        out = self.pre_process(bev)
        return out if isinstance(out, Tensor) else out[-1]


class _Lifted(_Past):
    """Past features are put where the extrinsics of the past images say."""

    def __init__(self, branch, rig, size, form):
        super().__init__(branch, rig, size, form)
        view, views = branch.view_transform, rig.lidar2cam.shape[1]
        self.past = DynamicLift(branch, rig, size)
        self.register_buffer('lens', rig.params[0])
        self.register_buffer('img_aug', rig.img_aug[0])
        self.state = dict(context=(self.times, views, view.channels, *size),
                          depth=(self.times, views, len(view.depths), *size))
        self.motion = dict(past_lidar2cam=(self.times, views, 4, 4))

    def forward(self, features: Tensor, state: Tuple[Tensor, ...], motion: Tensor,
                *calibration: Tensor) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        context, depth = self.view.predict(features, *calibration)
        lens, img_aug = calibration[1:] if calibration else (self.lens, self.img_aug)
        maps = [self.view.to_map(context, depth, *calibration)]
        for time in range(self.times):
            past = (values[time:time + 1] for values in state)
            maps.append(self.past.to_map(*past, motion[time], lens, img_aug))
        return torch.cat([self.process(bev) for bev in maps], 1), (context, depth)


class _Warped(_Past):
    """Past maps are sampled where the vehicle was."""

    def __init__(self, branch, rig, size, form):
        super().__init__(branch, rig, size, form)
        self.grid, self.pixel = branch.view_transform.grid, branch.warp_pixel
        with torch.no_grad():
            device = rig.lidar2cam.device
            example = torch.zeros(1, rig.lidar2cam.shape[1], branch.view_transform.channels, *size,
                                  device=device)
            depth = torch.zeros(1, example.shape[1], len(branch.view_transform.depths), *size,
                                device=device)
            bev = self.process(branch.view_transform.to_map((example, depth), rig))
        self.state = dict(bev=(self.times, *bev.shape[1:]))
        self.motion = dict(motion=(self.times, 4, 4))

    def forward(self, features: Tensor, state: Tuple[Tensor, ...], motion: Tensor,
                *calibration: Tensor) -> Tuple[Tensor, Tuple[Tensor, ...]]:
        bev, (past, ) = self.process(self.view(features, *calibration)), state
        maps = [bev, *(warp_bev(past[time:time + 1], self.grid, motion[time:time + 1], self.pixel)
                       for time in range(self.times))]
        return torch.cat(maps, 1), (bev, )
