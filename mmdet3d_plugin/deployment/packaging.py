"""The files beside an exported model: description (JSON) and arrays (NPZ)."""
import hashlib
import importlib.metadata
import io
import json
from pathlib import Path
from typing import Mapping, Optional

import numpy as np
from mmdet3d.registry import DATASETS

from ..checkpoints import atomic_write, file_sha256
from ..errors import UserError, parse_errors
from ..geometry import CameraRig
from ..structures import check_rig
from ..version import __version__
from .deployed import DeployedStudent
from .views import CALIBRATION

FORMAT = 3
_PACKAGES = ('torch', 'mmdet3d', 'onnx', 'onnxruntime', 'openvino')


def first_frame(inferencer, info: Optional[str] = None) -> dict:
    """The frame whose calibration is exported.

    Args:
        inferencer (BEVInferencer): Of the config.
        info: An info file (.pkl), whose first frame it is, or a frame's ``images`` as JSON, in
            the axes of the network. Defaults to the config's test data; where that is not on disk
            and the config reads a dual fisheye, the camera of Dur360BEV, which is fixed.

    Raises:
        UserError: There is no such file, or it is no frame.
    """
    cfg = inferencer.dataset_cfg
    if info is None:
        if not Path(cfg.get('data_root', ''), cfg.ann_file).is_file():
            camera = _fixed_camera(cfg.pipeline)
            if camera is not None:
                return camera
    elif Path(info).suffix == '.json':
        with parse_errors(f'calibration {info}: no rig', 'expected {"images": {NAME: '
                          '{"lidar2cam": 4x4, ...}}} as in an info file'):
            images = json.loads(Path(info).read_text(encoding='utf-8-sig'))
            images = images.get('images', images)
        check_rig(images, f'calibration {info}')
        return dict(images=images)
    else:
        if not Path(info).is_file():
            raise UserError(f'calibration {info}: no such file; give an info file or a JSON')
        own = dict(cfg, ann_file=str(Path(info).absolute()), data_root='', indices=None)
        return DATASETS.build(own).get_data_info(0)
    return inferencer.dataset.get_data_info(0)


def _fixed_camera(pipeline) -> Optional[dict]:
    for step in pipeline:
        if step['type'] in ('LoadDualFisheyePanorama', 'LoadDualFisheye'):
            view = dict(lidar2cam=np.eye(4), height=640, width=1280, lens='equirect',
                        source_lens='dual_fisheye')
            return dict(images={step.get('camera', 'CAM_PANO'): view})
    return None


def calibration_of(rig: CameraRig) -> dict:
    """Values of the inputs of the form ``'dynamic_calibration'``, float32 arrays by name."""
    values = rig.lidar2cam[0], rig.params[0], rig.img_aug[0]
    return {name: value.cpu().numpy() for name, value in zip(CALIBRATION, values)}


def describe(deployed: DeployedStudent, rig: CameraRig, grid, classes, recipe: Mapping,
             source: Mapping) -> dict:
    """The content of the description of an exported model.

    Args:
        deployed: The network.
        rig: Of its cameras.
        grid (BEVGrid): Of its maps.
        classes: A name for each channel of the segmentation.
        recipe: What happens to images before; see :func:`.preprocessing.recipe_of`.
        source: Where the network is from: ``config``, ``checkpoint``, precision and the like.
    """
    views = rig.lidar2cam.shape[1]
    mean, std = -deployed.shift / deployed.scale, 1 / deployed.scale
    inputs = dict(images=dict(
        shape=['batch', views, 3, *rig.size], dtype='uint8', colour='RGB', range=[0, 255],
        normalised_inside=dict(mean=mean.flatten().tolist(), std=std.flatten().tolist())))
    values = calibration_of(rig)
    shapes = {**deployed.past, **{name: value.shape for name, value in values.items()}}
    for name in deployed.inputs[1:]:
        inputs[name] = dict(shape=list(shapes[name]), dtype='float32')
    if 'lens' in inputs:
        inputs['lens']['columns'] = list(rig.param_names)
    outputs = {name: dict(shape=['batch', *output.shape], dtype='float32', meaning=output.meaning)
               for name, output in deployed.head.outputs().items()}
    for name in deployed.outputs[len(deployed.tasks):]:
        shape = deployed.past[name.replace('next_', 'past_', 1)]
        outputs[name] = dict(shape=[1, *shape[1:]], dtype='float32',
                             meaning='of the frame, for its place in the past of later ones')
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES if _installed(name)}
    return dict(
        format=FORMAT, **source, inputs=inputs,
        outputs=outputs, past=list(deployed.past),
        classes=list(classes), thresholds=[0.5] * len(classes),
        decoding=deployed.head.decoding(),
        grid=dict({key: value for key, value in grid.asdict().items() if value is not None},
                  shape=list(grid.shape)),
        calibration=dict(static=CALIBRATION[0] not in deployed.inputs, projection=rig.lens,
                         **{name: value.tolist() for name, value in values.items()}),
        preprocessing=dict(recipe), versions=dict(mmdet3d_plugin=__version__, **versions))


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def save_description(model: Path, description: Mapping, arrays: Mapping[str, np.ndarray]) -> None:
    """Write ``MODEL.npz`` and, last, ``MODEL.json`` beside the model, as in ``s.onnx.json``.

    Args:
        model: The exported file.
        description: Of :func:`describe`; the hashes of the files and its own are added.
        arrays: What preprocessing and drawing need.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    beside = model.with_name(f'{model.name}.npz')
    with atomic_write(beside) as file:
        file.write(buffer.getvalue())
    hashes = dict(sha256=file_sha256(model), arrays_sha256=file_sha256(beside))
    if model.suffix == '.xml':
        hashes['weights_sha256'] = file_sha256(model.with_suffix('.bin'))
    content = json.loads(json.dumps(dict(description, model=model.name, **hashes)))
    content['description_sha256'] = hashlib.sha256(
        json.dumps(content, sort_keys=True).encode()).hexdigest()
    with atomic_write(model.with_name(f'{model.name}.json')) as file:
        file.write(json.dumps(content, indent=1).encode())
