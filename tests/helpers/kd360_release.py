"""Names, weights and inputs with which the authors' release was run for its golden values."""
import math
from typing import Dict, Tuple

import numpy as np
import torch

from mmdet3d_plugin.geometry import CameraRig

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (
    (0.2941, 0.3056, 0.3148), (0.3561, 0.3668, 0.3749)))
BATCH_NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
# Blocks of EfficientNet-B0: kernel, expanded, output and squeezed channels; 0 does not expand.
B0 = ((3, 32, 16, 8), (3, 96, 24, 4), (3, 144, 24, 6), (5, 144, 40, 6), (5, 240, 40, 10),
      (3, 240, 80, 10), (3, 480, 80, 20), (3, 480, 80, 20), (5, 480, 112, 20), (5, 672, 112, 28),
      (5, 672, 112, 28), (5, 672, 192, 28), (5, 1152, 192, 48), (5, 1152, 192, 48),
      (5, 1152, 192, 48), (3, 1152, 320, 48))


def fill(name: str, shape: Tuple[int, ...]) -> torch.Tensor:
    """The weights of an entry, from its name in the release and its shape."""
    if not shape:
        return torch.zeros((), dtype=torch.int64 if name.endswith('tracked') else torch.float32)
    i = np.arange(math.prod(shape), dtype=np.float64)
    if len(shape) > 1:
        values = np.sin(0.37 * i * i / (1 + 0.001 * i) + len(name)) * np.sqrt(
            6 * shape[0] / len(i))
    elif name.endswith('running_var'):
        values = 1 + 0.5 * np.abs(np.sin(i))
    elif name.endswith(('running_mean', 'bias')):
        values = 0.1 * np.sin(i)
    else:
        values = 1 + 0.1 * np.cos(i)
    return torch.from_numpy(values.reshape(shape)).float()


def image(height: int, width: int, phase: int) -> torch.Tensor:
    """(3, height, width) image, normalised."""
    row, col = np.arange(height)[:, None], np.arange(width)[None]
    values = [0.5 + 0.25 * np.sin(0.013 * row * (m + 1) + phase)
              + 0.25 * np.sin(0.021 * col * (m + 1) + 0.5 * m) for m in range(3)]
    return (torch.from_numpy(np.stack(values)).float() - MEAN) / STD


def scan() -> torch.Tensor:
    """(30000, 3) points."""
    i = np.arange(30000, dtype=np.float64)
    azimuth, radius, height = (factor * i % 1 for factor in (
        0.6180339887, 0.7548776662, 0.5698402910))
    azimuth, radius = 2 * np.pi * azimuth, 2 + 47 * radius
    return torch.from_numpy(np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth),
                                      -1.9 + 3.8 * height], 1)).float()


def inputs() -> dict:
    """The batch of one frame that a model receives."""
    def rig(height, fov):
        return CameraRig.from_dicts([[dict(
            name='p', lens='equirect', lidar2cam=np.eye(4), height=height, width=2048,
            fov_up=math.radians(fov), fov_down=-math.radians(fov))]])

    return dict(imgs=image(1024, 2048, 0)[None, None], rig=rig(1024, 90),
                lidar_img=image(242, 2048, 1)[None], lidar_rig=rig(242, 22.5), points=[scan()])


def release(model: str) -> Dict[str, torch.Tensor]:
    """The state dict of the release's student, teacher or auxiliary network ('ta'), filled."""
    names = dict(student=_student, teacher=_teacher, ta=_ta)[model]()
    return {name: fill(name, shape) for name, shape in names.items()}


def _norm(name, channels):
    return {f'{name}.{field}': () if field == BATCH_NORM[-1] else (channels, )
            for field in BATCH_NORM}


def _efficientnet(prefix):
    body, names, inner = f'{prefix}.backbone', {}, 32
    names[f'{body}._conv_stem.weight'] = (32, 3, 3, 3)
    names |= _norm(f'{body}._bn0', 32)
    for index, (kernel, expanded, out, squeezed) in enumerate(B0):
        block = f'{body}._blocks.{index}'
        if index:
            names[f'{block}._expand_conv.weight'] = (expanded, inner, 1, 1)
            names |= _norm(f'{block}._bn0', expanded)
        names[f'{block}._depthwise_conv.weight'] = (expanded, 1, kernel, kernel)
        names |= _norm(f'{block}._bn1', expanded)
        for part, shape in (('reduce', (squeezed, expanded)), ('expand', (expanded, squeezed))):
            names[f'{block}._se_{part}.weight'] = (*shape, 1, 1)
            names[f'{block}._se_{part}.bias'] = shape[:1]
        names[f'{block}._project_conv.weight'] = (out, expanded, 1, 1)
        names |= _norm(f'{block}._bn2', out)
        inner = out
    names[f'{body}._conv_head.weight'] = (1280, 320, 1, 1)
    names |= _norm(f'{body}._bn1', 1280)
    names |= {f'{body}._fc.weight': (1000, 1280), f'{body}._fc.bias': (1000, )}
    return names | {f'{prefix}.channel_proj.weight': (128, 1280, 1, 1),
                    f'{prefix}.channel_proj.bias': (128, )}


def _resnet101(prefix):
    names, inner = {f'{prefix}.backbone.0.weight': (64, 3, 7, 7)}, 64
    names |= _norm(f'{prefix}.backbone.1', 64)
    for part, blocks, width in (('backbone.4', 3, 64), ('backbone.5', 4, 128),
                                ('layer3', 23, 256)):
        for index in range(blocks):
            block = f'{prefix}.{part}.{index}'
            for conv, shape in enumerate(((width, inner, 1, 1), (width, width, 3, 3),
                                          (4 * width, width, 1, 1)), start=1):
                names[f'{block}.conv{conv}.weight'] = shape
                names |= _norm(f'{block}.bn{conv}', shape[0])
            if not index:
                names[f'{block}.downsample.0.weight'] = (4 * width, inner, 1, 1)
                names |= _norm(f'{block}.downsample.1', 4 * width)
            inner = 4 * width
    return names | {f'{prefix}.upsampling_layer.conv.0.weight': (512, 1536, 3, 3),
                    f'{prefix}.upsampling_layer.conv.3.weight': (512, 512, 3, 3),
                    f'{prefix}.depth_layer.weight': (128, 512, 1, 1),
                    f'{prefix}.depth_layer.bias': (128, )}


def _decoder(prefix):
    names, inner = {f'{prefix}.first_conv.weight': (64, 128, 7, 7)}, 64
    names |= _norm(f'{prefix}.bn1', 64)
    for layer, planes in enumerate((64, 128, 256), start=1):
        for block in range(2):
            name = f'{prefix}.layer{layer}.{block}'
            names |= {f'{name}.conv1.weight': (planes, inner, 3, 3),
                      f'{name}.conv2.weight': (planes, planes, 3, 3)}
            names |= _norm(f'{name}.bn1', planes) | _norm(f'{name}.bn2', planes)
            if inner != planes:
                names[f'{name}.downsample.0.weight'] = (planes, inner, 1, 1)
                names |= _norm(f'{name}.downsample.1', planes)
            inner = planes
    for up, shape in ((3, (128, 256)), (2, (64, 128)), (1, (128, 64))):
        names[f'{prefix}.up{up}_skip.upsample_layer.1.weight'] = (*shape, 1, 1)
    for head, channels in (('feat_head', 128), ('segmentation_head', 1),
                           ('instance_offset_head', 2), ('instance_center_head', 1)):
        names |= {f'{prefix}.{head}.0.weight': (128, 128, 3, 3),
                  f'{prefix}.{head}.3.weight': (channels, 128, 1, 1),
                  f'{prefix}.{head}.3.bias': (channels, )}
    return names


def _fusion():
    convs = dict(gate_conv=(128, 256, 1, 1), fuse_conv=(128, 256, 3, 3))
    return {**{f'gatefusion.{name}.0.weight': shape for name, shape in convs.items()},
            **{f'gatefusion.{name}.0.bias': shape[:1] for name, shape in convs.items()},
            **_norm('gatefusion.fuse_conv.1', 128)}


def _task_weights():
    return {f'{task}_weight': () for task in ('ce', 'center', 'offset')}


def _student():
    return {**_task_weights(), **{f'kl{k}_weight': () for k in (1, 2, 3)},
            **_efficientnet('encoder'), 'bev_compressor.0.weight': (128, 1024, 3, 3),
            **_decoder('decoder')}


def _teacher():
    return {**_task_weights(), **_resnet101('encoder_l'), **_efficientnet('encoder_e'), **_fusion(),
            **{f'bev_compressor_{branch}.0.weight': (128, 1024, 3, 3) for branch in 'le'},
            **_decoder('decoder')}


def _ta():
    layers = dict(feat=(128, 128), b1=(128, 64), b2=(128, 128), H=(256, 256))
    return {**_student(), **_fusion(), **_decoder('decoder_ta'),
            **{f'adapt_{layer}.proj.weight': (*shape, 1, 1) for layer, shape in layers.items()},
            **{f'adapt_{layer}.proj.bias': shape[:1] for layer, shape in layers.items()}}
