"""The camera branch of models that also read past images."""
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import replace
from typing import Callable, List, Optional, Sequence, Tuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from ..errors import UserError, build_from
from ..geometry import CameraRig
from ..geometry.warping import motion, warp_bev
from .branches import CameraBranch, require
from .flips import Flips


@MODELS.register_module()
class TemporalCameraBranch(CameraBranch):
    """Camera images of several times to one BEV map, whose channels are those of all times.

    Each time runs through the same networks; those of past times without gradient, though in
    training their batch norms count, as in BEVDet4D and BEVDepth. Depth nets read the calibration
    of the newest images for all times.

    In inference over a sequence most past images were the newest ones of a frame before. What was
    predicted from them then is kept, by the paths of their files and the calibration, and not
    computed again: the result is the same. Where the calibration differs from frame to frame, as
    in nuScenes, whose extrinsics contain the motion between scan and image, nothing is reused.

    Args:
        encoder (dict): Image encoder.
        view_transform (dict): From its features and the camera rig to the BEV map of one time.
        grid (BEVGrid): The model's grid (passed by the model).
        num_past (int): T - 1.
        align (str): How past maps reach the newest frame. ``'lift'``: the view transform puts
            their features there, where the rigs of the past images say; exact in all dimensions
            (BEVDepth). ``'warp'``: their maps are made in their own frame and sampled at the moved
            cells (BEVDet4D).
        warp_pixel (str): See :func:`geometry.warping.warp_bev`.
        pre_process (dict, optional): Network on the map of each time, before it is warped.
        keep (int): Frames whose predictions are kept in inference; 0 keeps none.
    """

    def __init__(self, encoder: dict, view_transform: dict, grid, num_past: int = 1,
                 align: str = 'lift', warp_pixel: str = 'center',
                 pre_process: Optional[dict] = None, keep: int = 16,
                 path: str = 'model.camera_branch', init_cfg=None):
        super().__init__(encoder, view_transform, grid, path, init_cfg)
        if align not in ('lift', 'warp'):
            raise UserError(f"TemporalCameraBranch.align: expected 'lift' or 'warp', got {align!r}")
        if num_past < 1:
            raise UserError(f'TemporalCameraBranch.num_past: expected >= 1, got {num_past}; for '
                            'images of one time choose CameraBranch')
        self.num_past, self.align, self.warp_pixel = num_past, align, warp_pixel
        self.pre_process = build_from(MODELS, pre_process, f'{path}.pre_process')
        self.keep, self._kept = keep, OrderedDict()
        self.register_load_state_dict_post_hook(lambda self, _: self._kept.clear())

    def forward(self, inputs: dict, flips: Optional[Flips] = None) -> Tensor:
        """To (B, T * C, rows, columns), newest first.

        Args:
            inputs (dict): ``imgs`` (B, T, N, 3, H, W), ``rig`` and ``past_rigs``; in inference
                perhaps ``img_paths``, the files of each sample and time.
            flips (Flips, optional): Not supported.
        """
        require(inputs, 'imgs', 'img', 'a camera loader')
        images, rig = inputs['imgs'], inputs['rig']
        times = images.shape[1] if images.dim() == 6 else 1
        if times != 1 + self.num_past:
            raise UserError(f'camera_branch.num_past is {self.num_past}, but the batch has '
                            f'{times - 1} past images; set LoadMultiViewImages.num_past to it')
        if flips is not None:
            raise UserError('model.flips: not for models that read past images')
        rigs = [rig, *(replace(past, calibration=rig) for past in inputs['past_rigs'])]
        paths = inputs.get('img_paths')
        if self.training or not (self.keep and paths):
            return torch.cat([self._map(images[:, t], rigs, t) for t in range(times)], 1)
        return torch.cat([self._maps_of(images[n], rigs, n, paths[n])
                          for n in range(len(images))])

    def train(self, mode: bool = True) -> 'TemporalCameraBranch':
        """As of any module; what was kept is dropped."""
        self._kept.clear()
        return super().train(mode)

    def _map(self, images: Tensor, rigs: Sequence[CameraRig], time: int) -> Tensor:
        """The map of one time in the newest frame."""
        lifted = self.align == 'lift'
        with torch.no_grad() if time else nullcontext():
            bev = self._process(self.view_transform(
                self.encode_views(images), rigs[time if lifted else 0]))
            return bev if lifted or not time else self._warped(bev, rigs, time)

    def _predict(self, images: Tensor, rig: CameraRig) -> Tuple[Tensor, ...]:
        """What does not depend on the motion since the images were taken."""
        predicted = self.view_transform.predict(self.encode_views(images), rig)
        if self.align == 'lift':
            return predicted
        return (self._process(self.view_transform.to_map(predicted, rig)), )

    def _place(self, predicted: Tuple[Tensor, ...], rigs: Sequence[CameraRig],
               time: int) -> Tensor:
        if self.align == 'lift':
            return self._process(self.view_transform.to_map(predicted, rigs[time]))
        return self._warped(predicted[0], rigs, time) if time else predicted[0]

    def _warped(self, bev: Tensor, rigs: Sequence[CameraRig], time: int) -> Tensor:
        return warp_bev(bev, self.view_transform.grid, motion(rigs[0], rigs[time]),
                        self.warp_pixel)

    def _process(self, bev: Tensor) -> Tensor:
        if self.pre_process is None:
            return bev
        out = self.pre_process(bev)
        return out if isinstance(out, Tensor) else out[-1]

    def _maps_of(self, images: Tensor, rigs: Sequence[CameraRig], sample: int,
                 paths: Sequence[Tuple[str, ...]]) -> Tensor:
        """The maps of one sample, with the predictions that are kept."""
        own = [rig.geometry(sample if rig.num_geometries > 1 else 0) for rig in rigs]
        own[1:] = [replace(rig, calibration=own[0]) for rig in own[1:]]
        calibration = [value.cpu().numpy().tobytes() for value in (
            own[0].lidar2cam, own[0].params, own[0].img_aug)]
        maps: List[Tensor] = []
        for time, names in enumerate(paths):
            predicted = self._remember(
                (*names, *calibration),
                lambda time=time: self._predict(images[None, time], own[0]))
            maps.append(self._place(predicted, own, time))
        return torch.cat(maps, 1)

    def _remember(self, key: tuple, compute: Callable) -> Tuple[Tensor, ...]:
        if key not in self._kept:
            self._kept[key] = compute()
            if len(self._kept) > self.keep:
                self._kept.popitem(last=False)
        return self._kept[key]

    def __getstate__(self):
        return {**self.__dict__, '_kept': OrderedDict()}
