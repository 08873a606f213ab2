"""The official data flow of KD360-VoxelBEV's student, to measure against."""
import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..models.branches import CameraBranch
from ..models.heads import BEVSegHead
from ..models.layers import SameConv2d, conv_in_relu
from ..models.view_transforms import HeightCompressor, VoxelPulling


class OfficialBaseline(nn.Module):
    """A student with our weights and the steps of the authors' release.

    As there, each frame projects the voxels anew, samples a volume of depth one with
    ``F.grid_sample``, permutes the voxels and convolves them; a convolution pads by a copy, swish
    takes two passes, and a feature head runs whose output nobody reads. Outputs are those of the
    student whose view transform has ``wrap=False`` and ``border='fade'``.

    Args:
        model (nn.Module): KD360-VoxelBEV's student, or a distiller with one; it is copied.

    Raises:
        UserError: It is another model.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        student = copy.deepcopy(getattr(model, 'student', model)).eval()
        branch = getattr(student, 'camera_branch', None)
        if not (isinstance(branch, CameraBranch) and student.lidar_branch is None and
                isinstance(branch.view_transform, VoxelPulling) and
                isinstance(branch.view_transform.compressor, HeightCompressor) and
                isinstance(student.head, BEVSegHead)):
            raise UserError("the official baseline is of KD360-VoxelBEV's student; this is another "
                            'model')
        _restore(branch.encoder)
        self.encoder = nn.Sequential(*filter(None, (
            branch.encoder.input_proj, branch.encoder.backbone, branch.encoder.neck)))
        self.grid, self.compressor = branch.view_transform.grid, branch.view_transform.compressor
        self.bev_encoder, self.head = student.bev_encoder, student.head
        channels = branch.view_transform.compressor.out_channels
        self.feature_head = nn.Sequential(conv_in_relu(channels, channels),
                                          nn.Conv2d(channels, channels, 1))

    def forward(self, inputs: dict, data_samples=None, mode: str = 'tensor') -> dict:
        """The preprocessor's batch to the head's raw outputs; the other arguments are unused."""
        images, rig = inputs['imgs'], inputs['rig']
        features = self.encoder(images[:, 0].contiguous())
        levels, (rows, cols) = self.grid.num_levels, self.grid.shape
        points = self.grid.centers().permute(1, 2, 0, 3).reshape(-1, 3).to(images)
        pixel = rig.project(points, bounds=False)[0][:, 0]
        position = (2 * pixel + 1) / pixel.new_tensor(rig.size[::-1]) - 1
        position = F.pad(position, (0, 1)).view(-1, rows, cols, levels, 3)
        voxels = F.grid_sample(features[:, :, None], position.expand(len(images), *[-1] * 4),
                               align_corners=False)
        voxels = voxels.permute(0, 1, 4, 2, 3).flatten(1, 2).contiguous()
        maps = self.bev_encoder(self.compressor(voxels))
        self.feature_head(maps[-1])
        return self.head(maps)


class _Swish(nn.Module):

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class _PaddedConv(nn.Module):

    def __init__(self, conv: SameConv2d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = (self.conv._padding(x.shape[axis], axis) for axis in (-2, -1))
        return nn.Conv2d.forward(self.conv, F.pad(x, (*cols, *rows)))


def _restore(network: nn.Module) -> None:
    for name, child in network.named_children():
        if isinstance(child, nn.SiLU):
            setattr(network, name, _Swish())
        elif isinstance(child, SameConv2d):
            setattr(network, name, _PaddedConv(child))
        else:
            _restore(child)
