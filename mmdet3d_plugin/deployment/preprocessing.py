"""From a config's test pipeline to what a program without torch does with its images."""
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np
from mmdet3d.registry import TRANSFORMS

from ..errors import UserError, build_from

Recipe = Tuple[List[dict], dict, Dict[str, np.ndarray]]


def recipe_of(pipeline: Sequence[Mapping], frame: Mapping) -> Recipe:
    """What happens to the images before the network, for the calibration of one frame.

    Args:
        pipeline: Configs of the test data's transforms.
        frame: With ``images`` as in an info file; no file of it is read.

    Returns:
        tuple: The cameras that the network sees; a description for JSON, with ``kind``
        (``'remap'``, ``'circles'``, ``'panorama'``, ``'stitch'`` or ``'resize'``), the ``images``
        that it starts from and their sizes; and arrays that belong to it.

    Raises:
        UserError: A transform of the images is not known here.
    """
    steps = [step for outer in pipeline for step in outer.get('transforms', [outer])]
    found = {step['type']: build_from(TRANSFORMS, step, 'test_dataloader.dataset.pipeline')
             for step in steps if step['type'] in _LOADERS or step['type'] == 'ImageAug3D'}
    unknown = [step['type'] for step in steps if step['type'] not in found and any(
        word in step['type'] for word in ('Image', 'Panorama', 'Views', 'Fisheye'))
        and 'LiDAR' not in step['type']]
    loaders = [kind for kind in found if kind in _LOADERS]
    if len(loaders) != 1 or unknown:
        raise UserError(f'the test pipeline loads images by {", ".join(loaders + unknown)}; '
                        f'expected one of {", ".join(_LOADERS)}, and at most ImageAug3D')
    return _LOADERS[loaders[0]](found[loaders[0]], frame, found.get('ImageAug3D'))


def _panorama(loader, frame, views) -> Recipe:
    info = frame['images'][loader.camera]
    first, second = loader.prepare(frame)
    described = dict(kind='remap', nearest=loader.sampling == 'release',
                     images={loader.camera: (info['height'], info['width'])})
    return loader.cameras_of(frame), described, dict(map_0=first, map_1=second)


def _equirect(loader, frame, views) -> Recipe:
    cameras, info = loader.cameras_of(frame), frame['images'][loader.camera]
    described = dict(kind='panorama', rows=loader.rows_of(frame),
                     images={loader.camera: (info['height'], info['width'])})
    return cameras, described, {}


def _circles(loader, frame, views) -> Recipe:
    info = frame['images'][loader.camera]
    described = dict(kind='circles', rows=loader.kept(info['width'] // 2),
                     images={loader.camera: (info['height'], info['width'])})
    return loader.cameras_of(frame), described, {}


def _stitched(loader, frame, views) -> Recipe:
    layers, arrays = loader.prepare(frame)[0], {}
    for n, (index, maps, alpha) in enumerate(layers):
        arrays.update({f'layer_{n}_map_0': maps[0], f'layer_{n}_map_1': maps[1]})
        if index is not None:
            arrays.update({f'layer_{n}_index': index, f'layer_{n}_alpha': alpha})
    described = dict(kind='stitch', layers=len(layers), images=loader.images_of(frame))
    return loader.cameras_of(frame), described, arrays


def _images(loader, frame, views) -> Recipe:
    loader.num_past = 0  # what was predicted from past images is an input of the network
    cameras = loader.cameras_of(frame)
    sizes = {camera['name']: (camera['height'], camera['width']) for camera in cameras}
    described = dict(kind='resize', images=sizes, filter='area')
    if views is None:
        return cameras, dict(described, resized={n: size[::-1] for n, size in sizes.items()},
                             corner=dict.fromkeys(sizes, (0, 0))), {}
    if views.random:
        raise UserError('ImageAug3D draws at random in the test pipeline; give it random=False')
    drawn = views._draw()[0]
    layouts = {name: views.layout(size, views.factor_of(size, drawn))
               for name, size in sizes.items()}
    blank = [np.zeros((*size, 3), np.uint8) for size in sizes.values()]
    described.update(resized={name: layout[0] for name, layout in layouts.items()},
                     corner={name: layout[1] for name, layout in layouts.items()},
                     filter='pil' if views.release else 'area')
    return views.transform(dict(img=blank, cameras=cameras))['cameras'], described, {}


_LOADERS = {'LoadDualFisheyePanorama': _panorama, 'LoadDualFisheye': _circles,
            'LoadPanorama': _equirect, 'LoadStitchedPanorama': _stitched,
            'LoadMultiViewImages': _images}
