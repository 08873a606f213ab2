"""Use a trained model from Python.

    from mmdet3d_plugin.apis import BEVInferencer
    predict = BEVInferencer('configs/kd360/kd360_student_effb0_12k_dur360bev.py', 'student.pth')
    sample = predict(0)                          # first frame of the config's test data
    sample = predict('image.png')                # a file
    sample = predict(cv2.imread('image.png'))    # an array
    samples = predict(['image.png', 1], out_dir='results')  # a batch, drawn and saved
    sample.pred_bev.seg                          # (K, R, C) probabilities
    drawing = predict.draw(sample)               # (H, W, 3) uint8 RGB
"""
import copy
import functools
import numbers
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from .checkpoints import atomic_write, load_weights
from .engine import load_config
from .errors import UserError, build_from, did_you_mean
from .structures import check_rig, check_scan, fields, file_name, read_image
from .visualization import save_image
from .visualization.detections import SCORE_THRESHOLD, newest_views
from .visualization.frames import result_panel

_FILES = ('img', 'points', 'lidar2cam', 'lens')
_LENSES = ('dual_fisheye', 'equirect')
_ONE_IMAGE = ('LoadDualFisheyePanorama', 'LoadDualFisheye', 'LoadPanorama')
Frame = Union[int, str, Path, np.ndarray, Mapping[str, Any]]


def init_model(config: Union[str, Path, Config], checkpoint: Optional[Union[str, Path]] = None,
               device: Optional[str] = None, cfg_options: Optional[Mapping] = None) -> nn.Module:
    """Build a model in eval mode and load its weights strictly.

    Args:
        config (str | Path | Config): The config. A student's own config also takes the checkpoint
            of its distillation, and the distillation's config a published student.
        checkpoint (str | Path, optional): Weights. Defaults to None: as initialised.
        device (str, optional): Defaults to None: the GPU if there is one.
        cfg_options (dict, optional): ``{'a.b': value}`` to override in the config.

    Returns:
        nn.Module: The model, with its config as attribute ``cfg``.

    Raises:
        UserError: A wrong name in the config, or a missing or foreign checkpoint.
    """
    if isinstance(config, Config):
        init_default_scope(config.get('default_scope', 'mmdet3d'))
    else:
        config = load_config(config, cfg_options)
    model = build_from(MODELS, copy.deepcopy(config.model), 'model')
    if checkpoint is not None:
        load_weights(model, checkpoint)
    model.cfg = config
    return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu')).eval()


class BEVInferencer:
    """Predicts maps and boxes of frames of the config's test data, of info files or loose images.

    Args:
        config (str | Path | Config): See :func:`init_model`; its ``test_dataloader`` says how
            frames are loaded.
        checkpoint (str | Path): See :func:`init_model`.
        device (str, optional): See :func:`init_model`.
        metainfo (dict, optional): The info file's ``metainfo``, for frames that are not of the
            config's test data; models that read LiDAR need its ``lidar_image``. Defaults to the
            test data's.
    """

    def __init__(self, config: Union[str, Path, Config], checkpoint: Optional[Union[str, Path]],
                 device: Optional[str] = None, metainfo: Optional[Mapping] = None) -> None:
        self.model = init_model(config, checkpoint, device)
        if not self.model.cfg.get('test_dataloader'):
            raise UserError('the config has no test_dataloader, which says how to load a frame')
        self.dataset_cfg = self.model.cfg.test_dataloader.dataset
        self.metainfo = metainfo
        self.pipeline = Compose(self.dataset_cfg.pipeline)

    @functools.cached_property
    def dataset(self) -> BaseDataset:
        """The config's test data, opened when first needed."""
        return DATASETS.build(self.dataset_cfg)

    @torch.no_grad()
    def __call__(self, frames: Union[Frame, List[Frame]],
                 out_dir: Optional[Union[str, Path]] = None
                 ) -> Union[Det3DDataSample, List[Det3DDataSample]]:
        """Predict.

        Args:
            frames (int | str | Path | ndarray | dict | list): A frame, or a list of frames, which
                is one batch. A frame is

                * an index of the config's test data;
                * the path of an image, or an image (H, W, 3) uint8 BGR as of ``cv2.imread``;
                * loose files, ``dict(img=IMAGE, points=PATH, lidar2cam=4x4, lens=LENS)``: an image
                  and an Ouster scan, of which those that the model reads are needed; the
                  calibration, by default the identity as in Dur360BEV; and ``'dual_fisheye'``, the
                  default for loaders of dual-fisheye images, or ``'equirect'`` for a panorama of
                  the whole sphere, which takes the place of the one that they make;
                * a frame of an info file, ``dict(images={NAME: camera}, ...)``; a camera may have
                  ``img``, an image, in place of ``img_path``.
            out_dir (str | Path, optional): Where ``NAME.png``, the drawing, and ``NAME.npz``, the
                predicted maps and boxes, are written for each frame; NAME is its token or the
                image's name.

        Returns:
            Det3DDataSample | list: With what the head predicts: ``pred_bev``, whose ``seg`` is
            (K, R, C) in [0, 1], or ``pred_instances_3d`` with ``bboxes_3d``, ``scores_3d`` and
            ``labels_3d``, indices of the metainfo's ``classes``.

        Raises:
            UserError: A file is missing or damaged, a camera breaks the info file's schema, the
                index is out of range, or the frame is none of these.
        """
        if not isinstance(frames, (list, tuple)):
            return self([frames], out_dir)[0]
        if not frames:
            raise UserError('no frames: the list is empty')
        packed = [self._load(frame) for frame in frames]
        samples = self.model.test_step(pseudo_collate(packed))
        if out_dir is not None:
            names = _names([sample.metainfo.get('token', 'frame') for sample in samples])
            for name, sample, frame in zip(names, samples, packed):
                self._save(Path(out_dir) / name, sample, frame['inputs'])
        return samples

    def draw(self, sample: Det3DDataSample, inputs: Optional[Mapping] = None,
             threshold: float = 0.5, score_threshold: float = SCORE_THRESHOLD) -> np.ndarray:
        """Draw a prediction from above, beside the ground truth where the sample has one.

        Args:
            sample (Det3DDataSample): Of :meth:`__call__`.
            inputs (dict, optional): The packed inputs of the frame, which are drawn too.
            threshold (float): Of the probability of maps.
            score_threshold (float): Of the scores of a detector's boxes.

        Returns:
            ndarray: (H, W, 3) uint8 RGB.
        """
        sample, inputs = sample.cpu(), inputs or {}
        if 'pred_bev' in sample and fields.BEV_GRID not in sample.metainfo:
            sample.set_metainfo({fields.BEV_GRID: self.model.grid.asdict()})
        return result_panel(sample, inputs, dict(prediction=sample),
                            str(sample.metainfo.get('token', '')), 1440, threshold,
                            score_threshold, newest_views(sample, inputs), self.model.grid)

    def _save(self, path: Path, sample: Det3DDataSample, inputs: Mapping) -> None:
        """Write ``path``.png and ``path``.npz, each whole or not at all."""
        save_image(path.with_name(f'{path.name}.png'), self.draw(sample, inputs))
        arrays = {}
        for name in ('pred_bev', 'pred_instances_3d'):
            arrays.update({key: getattr(value, 'tensor', value).cpu().numpy()
                           for key, value in sample.get(name, {}).items()})
        if 'labels_3d' in arrays:
            arrays['classes'] = np.array(sample.metainfo.get(fields.CLASSES, ()), str)
        with atomic_write(path.with_name(f'{path.name}.npz')) as file:
            np.savez_compressed(file, **arrays)

    def _load(self, frame: Frame) -> dict:
        """The packed frame."""
        if isinstance(frame, Mapping):
            if 'images' in frame or 'lidar_points' in frame:
                return self.pipeline(self._frame_of_info(frame))
            return self._frame_of_files(frame)
        if isinstance(frame, (str, Path, np.ndarray)):
            return self._frame_of_files(dict(img=frame))
        if not isinstance(frame, numbers.Integral) or isinstance(frame, bool):
            raise UserError(f'a frame is an index, a path, an image or a dict, got '
                            f'{type(frame).__name__} {frame!r:.60}')
        if not 0 <= frame < len(self.dataset):
            raise UserError(f'frame {frame}: the test data has frames 0 to {len(self.dataset) - 1}')
        return self.dataset[int(frame)]

    def _frame_of_files(self, files: Mapping) -> dict:
        """A packed frame of loose files."""
        for name in files:
            if name not in _FILES:
                raise UserError(f'files of a frame: {name!r} is none'
                                f'{did_you_mean(str(name), (*_FILES, "images"))}')
        if not {'img', 'points'} & set(files):
            raise UserError(f'files of a frame: neither img nor points, only {sorted(files)}')
        frame, pipeline = dict(sample_idx=0, token='frame', instances=[]), self.pipeline
        if 'points' in files:
            path = _existing(files['points'], 'points')
            frame.update(token=path.stem, lidar_points=dict(
                lidar_path=str(path.absolute()), num_pts_feats=9))
        if 'img' in files:
            name, lens, pipeline = self._image_loader(files.get('lens'))
            camera, stem = _camera_of(files['img'])
            camera.update(lens='equirect', lidar2cam=files.get('lidar2cam', np.eye(4)))
            if lens == 'dual_fisheye':
                camera['source_lens'] = lens
            frame.update(token=stem, images={name: camera})
        return pipeline(self._frame_of_info(frame))

    def _image_loader(self, lens: Optional[str]) -> Tuple[str, str, Compose]:
        """Name and lens of the one camera that the config reads, and the pipeline for this lens."""
        if lens not in (None, *_LENSES):
            raise UserError(f'files of a frame: lens {lens!r} is none'
                            f'{did_you_mean(str(lens), _LENSES)}')
        steps = [step for outer in self.dataset_cfg.pipeline
                 for step in outer.get('transforms', [outer])]
        loader = next((step for step in steps if step['type'] in _ONE_IMAGE), None)
        if loader is None:
            kinds = ', '.join(step['type'] for step in steps if step['type'].startswith('Load'))
            raise UserError(f'one image without its camera: the config reads {kinds}; give '
                            'dict(images={NAME: camera}) as in an info file')
        usual = 'equirect' if loader['type'] == 'LoadPanorama' else 'dual_fisheye'
        lens, pipeline = lens or usual, self.pipeline
        if lens == 'equirect' and loader['type'] == 'LoadDualFisheyePanorama':
            pipeline = self._of_panoramas
        return loader.get('camera', 'CAM_PANO'), lens, pipeline

    @functools.cached_property
    def _of_panoramas(self) -> Compose:
        """The pipeline with ``LoadPanorama`` in place of the loader that makes a panorama."""
        def changed(step):
            if 'transforms' in step:
                return dict(step, transforms=[changed(inner) for inner in step['transforms']])
            if step['type'] != 'LoadDualFisheyePanorama':
                return step
            return {**{k: v for k, v in step.items() if k != 'sampling'}, 'type': 'LoadPanorama'}

        return Compose([changed(step) for step in self.dataset_cfg.pipeline])

    def _frame_of_info(self, info: Mapping) -> dict:
        """A frame as the pipeline expects it; paths relative to the config's data root."""
        info = dict(dict(sample_idx=0, token='frame', instances=[]), **info)
        if 'images' in info:
            check_rig({name: {k: v for k, v in camera.items() if k != 'img'}
                       if isinstance(camera, Mapping) else camera
                       for name, camera in dict(info['images']).items()}, 'frame')
            for name, camera in info['images'].items():
                _check_image(camera, f'frame: images.{name}')
        if 'lidar_points' in info:
            check_scan(info['lidar_points'], 'frame')
        metainfo = self.metainfo
        if 'lidar_points' in info and metainfo is None:
            metainfo = self.dataset.metainfo
        return self._reader.parse_frame(copy.deepcopy(info), metainfo or {})

    @functools.cached_property
    def _reader(self) -> BaseDataset:
        """The test data's class without its frames: it knows its paths and axes."""
        return DATASETS.build({**self.dataset_cfg, 'lazy_init': True, 'test_mode': True,
                               'load_eval_anns': False})


def _camera_of(image: Union[str, Path, np.ndarray]) -> Tuple[dict, str]:
    """File or array of an image with its size, and a name for its frame."""
    if isinstance(image, np.ndarray):
        found, camera, stem = image, dict(img=image), 'frame'
        _check_image(camera, 'img')
    else:
        path = _existing(image, 'img')
        camera, stem = dict(img_path=str(path.absolute())), path.stem
        found = read_image(str(path))
    return dict(camera, height=found.shape[0], width=found.shape[1]), stem


def _check_image(camera: Mapping, where: str) -> None:
    """Check the entry ``img`` of a camera, or that it has a path."""
    if 'img' not in camera:
        if 'img_path' not in camera:
            raise UserError(f'{where}: neither img_path nor img')
        return
    image = camera['img']
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3, ):
        got = f'{image.dtype} of shape {image.shape}' if isinstance(image, np.ndarray) else (
            type(image).__name__)
        raise UserError(f'{where}: expected an image, (H, W, 3) uint8 BGR, got {got}')
    size = camera.get('height', image.shape[0]), camera.get('width', image.shape[1])
    if image.shape[:2] != size:
        raise UserError(f'{where}: the image is {image.shape[1]}x{image.shape[0]}, its camera '
                        f'{size[1]}x{size[0]}')


def _existing(path: Union[str, Path], what: str) -> Path:
    """A file that is there; otherwise an error with the near name."""
    if not isinstance(path, (str, Path)):
        raise UserError(f'{what}: expected a path, got {type(path).__name__}')
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{what} {path}: a folder; give a list of its files, such as "
                        f"sorted(Path('{path}').glob('*.png'))")
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, beside)
        raise UserError(f'{what} {path}: missing or unreadable {"image" if what == "img" else what}'
                        f'{near if "mean" in near else ""}')
    return path


def _names(tokens: Sequence[str]) -> List[str]:
    """File names of the frames of a batch; equal tokens are numbered."""
    seen: Dict[str, int] = {}
    names = []
    for token in tokens:
        token = file_name(token)
        seen[token] = seen.get(token, -1) + 1
        names.append(f'{token}_{seen[token]}' if seen[token] else token)
    return names
