"""What every view transform does: image features to voxels, voxels to a BEV map."""
from abc import ABCMeta, abstractmethod
from typing import Optional, Sequence, Tuple

from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import build_from
from ...geometry import CameraRig
from ..flips import Flips
from .compressors import Voxels


class ViewTransform(BaseModule, metaclass=ABCMeta):
    """Image features to a BEV map, through the voxels of the model's grid.

    Attributes:
        compressor (nn.Module, optional): ``(voxels, flips) -> BEV map``; the voxels themselves are
            returned when None.
    """
    compressor: Optional[nn.Module]

    def build_compressor(self, cfg: Optional[dict]) -> None:
        """Build the compressor, after the layers that run before it."""
        self.compressor = build_from(MODELS, cfg, 'view_transform.compressor')

    def forward(self, features: Tensor, rig: CameraRig, points: Optional[Sequence[Tensor]] = None,
                flips: Optional[Flips] = None) -> Tensor:
        """Transform.

        Args:
            features (Tensor): (B, N, C, h, w) image features of the rig's N views.
            rig (CameraRig): The calibrated cameras.
            points (list[Tensor], optional): Per sample (P, >=3) LiDAR points, metres.
            flips (Flips, optional): Run the compressor in a flipped frame; the result is in the
                true one, unless ``flips.undo_late``.

        Returns:
            Tensor: (B, C', rows, columns), the compressor's map.
        """
        return self.to_map(self.predict(features, rig), rig, points, flips)

    def predict(self, features: Tensor, rig: CameraRig) -> Tuple[Tensor, ...]:
        """What depends on the images and on the calibration, but not on where the cameras are."""
        return (features, )

    def to_map(self, predicted: Tuple[Tensor, ...], rig: CameraRig,
               points: Optional[Sequence[Tensor]] = None, flips: Optional[Flips] = None) -> Tensor:
        """The BEV map of what :meth:`predict` returned; see :meth:`forward`."""
        voxels = self.to_voxels(predicted, rig, points)
        return voxels if self.compressor is None else self.compressor(voxels, flips)

    @abstractmethod
    def to_voxels(self, predicted: Tuple[Tensor, ...], rig: CameraRig,
                  points: Optional[Sequence[Tensor]] = None) -> Voxels:
        """Predictions to voxels, (B, C * L, rows, columns) with the channel ``c * L + level``."""
