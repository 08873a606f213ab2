"""Branches: from one sensor's input to its BEV feature map."""
from typing import Optional

from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from ..errors import UserError, build_from
from .flips import Flips


class _ImageBranch(BaseModule):
    """Image encoder -> view transform."""

    def __init__(self, encoder: dict, view_transform: dict, grid, path: str, init_cfg=None):
        super().__init__(init_cfg)
        self.encoder = build_from(MODELS, encoder, f'{path}.encoder')
        self.view_transform = build_from(MODELS, view_transform, f'{path}.view_transform',
                                         grid=grid)

    def encode_views(self, images: Tensor) -> Tensor:
        """(B, N, C, H, W) -> (B, N, C', h, w)."""
        return self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])


@MODELS.register_module()
class CameraBranch(_ImageBranch):
    """Camera images to BEV.

    Args:
        encoder (dict): Image encoder.
        view_transform (dict): From its features and the camera rig to the BEV map.
        grid (BEVGrid): The model's grid (passed by the model).
    """

    def __init__(self, encoder, view_transform, grid, path='model.camera_branch', init_cfg=None):
        super().__init__(encoder, view_transform, grid, path, init_cfg)

    def forward(self, inputs: dict, flips: Optional[Flips] = None) -> Tensor:
        """``inputs['imgs']`` (B, N, 3, H, W) and ``inputs['rig']`` to (B, C, rows, columns)."""
        require(inputs, 'imgs', 'img', 'a camera loader')
        images, rig = inputs['imgs'], inputs['rig']
        if images.dim() != 5:
            raise UserError('CameraBranch reads the images of one time, but the batch has '
                            f'{images.shape[1]}: set LoadMultiViewImages.num_past to 0, or choose '
                            'TemporalCameraBranch')
        features = self.encode_views(images) if flips is None else flips.run_on_image(
            self.encode_views, images)
        return self.view_transform(features, rig, inputs.get('points'), flips)


@MODELS.register_module()
class LiDARImageBranch(_ImageBranch):
    """The LiDAR image to BEV, at the voxels that the scan occupies.

    Args as in :class:`CameraBranch`. Its features are never flipped: the LiDAR image is exact.
    """

    def __init__(self, encoder, view_transform, grid, path='model.lidar_branch', init_cfg=None):
        super().__init__(encoder, view_transform, grid, path, init_cfg)

    def forward(self, inputs: dict, flips: Optional[Flips] = None) -> Tensor:
        """``inputs['lidar_img']`` (B, C, h, w), ``['lidar_rig']``, ``['points']`` to BEV."""
        for key in ('lidar_img', 'points'):
            require(inputs, key, key, 'the LiDAR loaders')
        features = self.encode_views(inputs['lidar_img'][:, None])
        return self.view_transform(features, inputs['lidar_rig'], inputs['points'])


def require(inputs: dict, key: str, packed: str, loader: str) -> None:
    """Raise a UserError if the batch lacks an input."""
    if inputs.get(key) is None:
        raise UserError(
            f'the model needs inputs[{key!r}], but the batch has {sorted(inputs)}; put {loader} in '
            f'the pipeline and {packed!r} in PackBEVInputs.keys')
