"""From packed samples to batched, normalised tensors and camera rigs on the device."""
from typing import List, Sequence

import torch
from mmdet3d.models import Det3DDataPreprocessor
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from ..errors import UserError
from ..geometry import CameraRig
from ..structures import fields

# Dur360BEV's statistics of RGB in [0, 1]; the authors use them for the LiDAR image too, where
# channel i takes the constants of colour i.
_MEAN = (0.2941, 0.3056, 0.3148)
_STD = (0.3561, 0.3668, 0.3749)


@MODELS.register_module()
class BEVDataPreprocessor(Det3DDataPreprocessor):
    """mmdet3d's preprocessor, which also keeps the LiDAR image and builds the rigs.

    The batch it returns has ``imgs`` (B, N, 3, H, W) and ``rig`` when images were packed,
    ``lidar_img`` (B, C, h, w) and ``lidar_rig`` when LiDAR images were, and ``points`` as a list.
    With past images ``imgs`` is (B, T, N, 3, H, W), newest first, ``rig`` is the newest's and
    ``past_rigs`` the list of the others; their extrinsics contain the ego motion.

    Args:
        mean, std (tuple): RGB statistics for images in [0, 1].
        lidar_mean, lidar_std (tuple): Statistics of the LiDAR image's channels, in [0, 1].
    """

    def __init__(self, mean: Sequence[float] = _MEAN, std: Sequence[float] = _STD,
                 lidar_mean: Sequence[float] = _MEAN, lidar_std: Sequence[float] = _STD, **kwargs):
        super().__init__(mean=[255 * v for v in mean], std=[255 * v for v in std], **kwargs)
        for name, values in (('lidar_mean', lidar_mean), ('lidar_std', lidar_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def simple_process(self, data: dict, training: bool = False) -> dict:
        """Process one batch; see the class."""
        processed = super().simple_process(data, training)
        inputs, samples = processed['inputs'], processed['data_samples']
        if 'imgs' in inputs:
            rigs = self._rigs(samples)
            inputs['rig'], past = rigs[0], rigs[1:]
            if past:
                inputs['past_rigs'] = past
                if not training:
                    self._add_paths(inputs, samples)
        images = data['inputs'].get('lidar_img')
        if images is not None:
            inputs['lidar_img'] = self._normalize_lidar(self.cast_data(images))
            inputs['lidar_rig'] = self._rig(
                samples, [[sample.metainfo['lidar_camera']] for sample in samples])
        for key, clouds in data['inputs'].items():
            if fields.is_points(key) and key != fields.POINTS:
                inputs[key] = self.cast_data(clouds)
        return processed

    def collate_data(self, data: dict) -> dict:
        """Cast, batch and normalise, as mmdet3d and equal to it bit for bit.

        Images are stacked as they come, one byte a value, and their floats are written once, with
        the channels last in memory; mmdet3d writes those of each view, each sample and the batch.
        """
        images = data['inputs'].get('img')
        shapes = {image.shape for image in images or ()}
        if self.pad_size_divisor != 1 or len(shapes) != 1 or len(shapes.pop()) not in (4, 5):
            return super().collate_data(data)
        data = self.cast_data(data)
        batch = _stack([image.movedim(-3, -1) for image in data['inputs']['img']])
        if self._channel_conversion:
            batch = batch[..., [2, 1, 0]]
        width = batch.shape[-2]
        rows = _normalize(batch.flatten(-2), *(
            statistic.flatten().repeat(width) for statistic in (self.mean, self.std)))
        data['inputs']['imgs'] = rows.unflatten(-1, (width, -1)).movedim(-1, -3)
        data.setdefault('data_samples', None)
        return data

    def _get_pad_shape(self, data: dict) -> list:
        """As mmdet3d's, with past images taken for more views."""
        images = data['inputs'].get('img')
        if images is not None and images[0].dim() == 5:
            data = dict(data, inputs=dict(img=[image.flatten(0, 1) for image in images]))
        return super()._get_pad_shape(data)

    def _normalize_lidar(self, images: Sequence[Tensor]) -> Tensor:
        batch = _stack(images)
        if batch.shape[1] != len(self.lidar_mean):
            raise UserError(
                f'data_preprocessor: the LiDAR image has {batch.shape[1]} channels, but lidar_mean '
                f'has {len(self.lidar_mean)}; set lidar_mean and lidar_std for its channels')
        return _normalize(batch, self.lidar_mean, self.lidar_std)

    def _rigs(self, samples: Sequence[Det3DDataSample]) -> List[CameraRig]:
        """The rig of each time, newest first."""
        cameras = [sample.metainfo[fields.CAMERAS] for sample in samples]
        return [self._rig(samples, [fields.at_time(views, time) for views in cameras])
                for time in range(fields.num_times(cameras[0]))]

    @staticmethod
    def _add_paths(inputs: dict, samples: Sequence[Det3DDataSample]) -> None:
        """The files of each sample and time, where all images are of files."""
        cameras = [sample.metainfo[fields.CAMERAS] for sample in samples]
        if all('img_path' in camera for views in cameras for camera in views):
            inputs['img_paths'] = [
                [tuple(camera['img_path'] for camera in fields.at_time(views, time))
                 for time in range(fields.num_times(views))] for views in cameras]

    def _rig(self, samples: Sequence[Det3DDataSample], cameras: Sequence[list]) -> CameraRig:
        metas = [sample.metainfo for sample in samples]
        bev_aug = [meta['bev_aug'] for meta in metas] if 'bev_aug' in metas[0] else None
        return CameraRig.from_dicts(cameras, bev_aug, self.device)


def _stack(items: Sequence[Tensor]) -> Tensor:
    """A batch of tensors of one shape; of a single one a view."""
    return torch.stack(list(items)) if len(items) > 1 else items[0][None]


def _normalize(batch: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(batch - mean) / std`` as new floats, which are allocated once."""
    return batch.to(torch.float32, copy=True).sub_(mean).div_(std)
