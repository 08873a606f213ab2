"""A student made ready for inference."""
import copy
from types import MethodType
from typing import Dict, Optional, Sequence, Tuple

import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.models.backbones.swin import ShiftWindowMSA
from torch import Tensor, nn

from ..errors import UserError
from ..geometry import CameraRig
from ..models import TemporalCameraBranch
from .past import build_past
from .views import CALIBRATION, build_view


class DeployedStudent(nn.Module):
    """A student for inference: images to BEV maps, without the parts that only training needs.

    It equals ``predict`` of the model, but for rounding: images are normalised inside, batch norms
    are folded into convolutions, the geometry of one rig is constant, and losses and outputs that
    are not asked for are removed. It runs eagerly, under ``torch.compile`` and in exporters.

    Args:
        model (nn.Module): A model with a camera branch alone, or a distiller with such a student;
            it is copied.
        rig (CameraRig): Of the cameras, on the model's device.
        tasks (tuple, optional): Names of the head's outputs. Defaults to those that a prediction
            needs; see :meth:`BEVHead.keep_outputs`.
        form (str, optional): ``'embedding_bag'``, ``'block_dense'``, ``'grid_sample'`` or
            ``'dynamic_calibration'``; see :mod:`.views`. Defaults to the fastest in torch:
            ``'embedding_bag'`` on a CPU, else ``'grid_sample'``.

    Attributes:
        outputs (tuple): Names of what it returns.
        tasks (tuple): Those of the head, the first ones; ``head.outputs()`` has shapes and
            meanings.
        inputs (tuple): Names of what it takes.
        past (dict): Names and shapes of the inputs that are of past frames.

    Raises:
        UserError: The model reads LiDAR, or a task is unknown.
    """

    def __init__(self, model: nn.Module, rig: CameraRig, tasks: Optional[Sequence[str]] = None,
                 form: Optional[str] = None) -> None:
        super().__init__()
        student = copy.deepcopy(getattr(model, 'student', model)).eval()
        branch = getattr(student, 'camera_branch', None)
        if branch is None or student.lidar_branch is not None:
            raise UserError('only models that read images alone are deployed: students; this one '
                            'reads LiDAR')
        student = fuse_conv_bn(student).requires_grad_(False)
        for module in student.modules():
            if isinstance(module, ShiftWindowMSA):
                module.window_reverse = MethodType(_window_reverse, module)
        form = form or ('embedding_bag' if rig.lidar2cam.device.type == 'cpu' else 'grid_sample')
        self.tasks = student.head.keep_outputs(tasks)
        self.encoder = student.camera_branch.encoder
        self.bev_encoder, self.head = student.bev_encoder, student.head
        mean, std = _statistics(model.data_preprocessor)
        self.register_buffer('scale', 1 / std)
        self.register_buffer('shift', -mean / std)
        size = tuple(self._encode(rig.lidar2cam.new_zeros(1, 1, 3, *rig.size)).shape[-2:])
        build = build_past if isinstance(student.camera_branch, TemporalCameraBranch) else (
            build_view)
        self.view = build(student.camera_branch, rig.geometry(0), size, form)
        self.past: Dict[str, Tuple[int, ...]] = {}
        if build is build_past:
            self.past = {f'past_{name}': shape for name, shape in self.view.state.items()}
            self.past.update(self.view.motion)
        self.inputs = ('images', *self.past,
                       *(CALIBRATION if form == 'dynamic_calibration' else ()))
        self.outputs = (*self.tasks, *(f'next_{name}' for name in getattr(self.view, 'state', ())))

    def forward(self, images: Tensor, second: Optional[Tensor] = None,
                third: Optional[Tensor] = None, fourth: Optional[Tensor] = None,
                *others: Tensor) -> Tuple[Tensor, ...]:
        """Predict.

        Args:
            images (Tensor): (B, N, 3, H, W) RGB in [0, 255], uint8 or float; B is 1 for models
                that read past images.
            second, third, fourth, *others (Tensor): What else ``inputs`` names, in its order
                (torch.export asks for names). ``past_NAME`` is the output ``next_NAME``
                of each past frame, newest first, and ``motion`` (T - 1, 4, 4) or
                ``past_lidar2cam`` (T - 1, N, 4, 4) go from the frame to the LiDAR frames, or to
                the cameras, of the past ones. For the form ``'dynamic_calibration'``
                ``lidar2cam`` (N, 4, 4), ``lens`` (N, P) and ``img_aug`` (N, 3, 3) of all samples;
                see :class:`CameraRig`.

        Returns:
            tuple: (B, ...) float32 for each name in ``outputs``, as the head decodes them, and
            what the next frame needs.
        """
        others = [value for value in (second, third, fourth, *others) if value is not None]
        features, kept = self._encode(images), ()
        if self.past:
            *state, motion = others[:len(self.past)]
            bev, kept = self.view(features, tuple(state), motion, *others[len(self.past):])
        else:
            bev = self.view(features, *others)
        outs = self.head.decode(self.head(self.bev_encoder(bev)))
        return (*(outs[name] for name in self.tasks), *kept)

    def _encode(self, images: Tensor) -> Tensor:
        pixels = images.flatten(0, 1).float() * self.scale + self.shift
        return self.encoder(pixels).unflatten(0, (-1, images.shape[1]))


def _statistics(preprocessor: nn.Module) -> Tuple[Tensor, Tensor]:
    """Mean and standard deviation of the images, (3, 1, 1)."""
    if preprocessor._channel_conversion or preprocessor.pad_size_divisor != 1:
        raise UserError('data_preprocessor: channel conversion and padding are not deployed; let '
                        'the pipeline do them')
    if not preprocessor._enable_normalize:
        mean = torch.zeros(3, 1, 1, device=preprocessor.device)
        return mean, mean + 1
    return preprocessor.mean, preprocessor.std


def _window_reverse(self, windows: Tensor, height: int, width: int) -> Tensor:
    """As mmdet's, for any number of images."""
    side = self.window_size
    grid = windows.view(-1, height // side, width // side, side, side, windows.shape[-1])
    return grid.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])
