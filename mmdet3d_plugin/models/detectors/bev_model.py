"""The one model class: branches -> fuser -> BEV encoder -> head."""
from contextlib import nullcontext
from typing import Dict, List, Optional, Sequence, Union

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import UserError, build_from
from ...geometry import BEVGrid
from ..aux_losses import AuxLosses
from ..flips import Flips
from ..layers import freeze_bn_stats
from ..parts import merge_losses


@MODELS.register_module()
class BEVModel(BaseModel):
    """A bird's-eye-view model of a camera, a LiDAR, or both.

    Modes: ``loss`` returns a dict of scalars, ``predict`` the samples with the fields that the
    head fills, and ``tensor`` the head's raw outputs. The head owns the task; the model knows none.

    Args:
        grid (dict): The BEV grid, the only place where the model states it; every part that needs
            it receives this one.
        camera_branch (dict, optional): Camera images to BEV.
        lidar_branch (dict, optional): LiDAR to BEV.
        fuser (dict, optional): Joins both branches' maps; needed when there are two.
        bev_encoder (dict): Network on the BEV map.
        head (dict): Task head.
        flips (dict, optional): Probabilities ``image``, ``rows``, ``cols`` of flips inside the
            network during training, and ``undo_late``; see :class:`Flips`. Off when None.
        aux_losses (dict[str, dict], optional): Losses by name on tensors inside the model, in
            training only; see :class:`AuxLosses`. One set to None is off.
        checkpointing (bool): Keep no activations of branches and BEV encoder in training, but
            compute them again for the backward pass: less memory, a third more time, and the same
            loss, gradients and running statistics.
        data_preprocessor (dict, optional): Batches, normalises and builds the camera rigs.
    """

    def __init__(self, grid: dict, bev_encoder: dict, head: dict,
                 camera_branch: Optional[dict] = None, lidar_branch: Optional[dict] = None,
                 fuser: Optional[dict] = None, flips: Optional[dict] = None,
                 aux_losses: Optional[dict] = None, checkpointing: bool = False,
                 data_preprocessor: Optional[dict] = None, init_cfg=None):
        super().__init__(
            build_from(MODELS, data_preprocessor, 'model.data_preprocessor'), init_cfg)
        self.grid = BEVGrid(**grid)
        if camera_branch is None and lidar_branch is None:
            raise UserError('model: give camera_branch, lidar_branch or both')
        if (fuser is None) == (camera_branch is not None and lidar_branch is not None):
            raise UserError('model.fuser: needed exactly when there are two branches')
        if flips and flips.get('undo_late') and lidar_branch is not None:
            raise UserError('model.flips.undo_late: the maps of a LiDAR branch are never flipped, '
                            'so the fuser would join two frames; leave it out')
        self.flips, self.checkpointing = flips, checkpointing
        self.camera_branch = build_from(MODELS, camera_branch, 'model.camera_branch',
                                        grid=self.grid)
        self.lidar_branch = build_from(MODELS, lidar_branch, 'model.lidar_branch', grid=self.grid)
        self.fuser = build_from(MODELS, fuser, 'model.fuser')
        self.bev_encoder = build_from(MODELS, bev_encoder, 'model.bev_encoder')
        self.head = build_from(MODELS, head, 'model.head', grid=self.grid)
        self.aux_losses = AuxLosses(aux_losses, self) if aux_losses else None

    def forward(self, inputs: dict, data_samples: Optional[Sequence[Det3DDataSample]] = None,
                mode: str = 'tensor') -> Union[Dict[str, Tensor], List[Det3DDataSample]]:
        """Run the model.

        Args:
            inputs (dict): From the preprocessor: ``imgs`` (B, N, 3, H, W) and ``rig``, and for a
                LiDAR branch ``lidar_img`` (B, C, h, w), ``lidar_rig`` and ``points``.
            data_samples (list, optional): With the head's ground truth in mode ``loss``.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            dict | list: See the class.
        """
        if mode == 'loss':
            return self._loss(inputs, data_samples)
        if mode == 'predict':
            return self._predict(inputs, data_samples)
        if mode == 'tensor':
            return self._run(inputs)
        raise ValueError(f"mode: expected 'loss', 'predict' or 'tensor', got {mode!r}")

    def _loss(self, inputs: dict, samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        if self.aux_losses is None:
            return self.head.loss(self._run(inputs), samples)
        with self.aux_losses.record(self) as taps:
            losses = self.head.loss(self._run(inputs), samples)
        return merge_losses(losses, self.aux_losses(taps, inputs, samples), 'model.aux_losses')

    def _predict(self, inputs: dict, samples: Sequence[Det3DDataSample]) -> List[Det3DDataSample]:
        if self.aux_losses is None or not self.aux_losses.predicts:
            return self.head.predict(self._run(inputs), samples)
        with self.aux_losses.record(self) as taps:
            samples = self.head.predict(self._run(inputs), samples)
        self.aux_losses.predict(taps, inputs, samples)
        return samples

    def _run(self, inputs: dict) -> Dict[str, Tensor]:
        flips = self._draw_flips(inputs)
        branches = (self.camera_branch, self.lidar_branch)
        maps = [self._call(branch, inputs, flips) for branch in branches if branch is not None]
        bev = self.fuser(*maps) if self.fuser is not None else maps[0]
        return self.head(self._call(self.bev_encoder, bev, flips))

    def _call(self, part: nn.Module, *args):
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return part(*args)
        return checkpoint(part, *args, use_reentrant=False,
                          context_fn=lambda: (nullcontext(), freeze_bn_stats(part)))

    def _draw_flips(self, inputs: dict) -> Optional[Flips]:
        if not self.training or self.flips is None:
            return None
        batch = inputs['imgs' if inputs.get('imgs') is not None else 'lidar_img']
        return Flips.draw(len(batch), **self.flips, device=batch.device)
