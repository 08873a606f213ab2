"""Use a trained model from Python.

    from mmdet3d_plugin.apis import BEVInferencer
    predict = BEVInferencer('configs/kd360/....py', 'work_dirs/.../best.pth')
    sample = predict(0)                      # first frame of the config's test data
    sample = predict(dict(img='pano.png'))   # a file
    sample.pred_bev.seg                      # (K, R, C) probabilities
"""
import copy
import functools
from pathlib import Path
from typing import Any, List, Mapping, Optional, Union

import cv2
import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from .checkpoints import load_weights
from .engine import load_config
from .errors import UserError, build_from, did_you_mean

_FILES = ('img', 'points', 'lidar2cam')
Frame = Union[int, Mapping[str, Any]]


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
    """Predicts BEV maps of frames of the config's test data, of info files, or of loose files.

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
    def __call__(self, frames: Union[Frame, List[Frame]]
                 ) -> Union[Det3DDataSample, List[Det3DDataSample]]:
        """Predict.

        Args:
            frames (int | dict | list): An index of the test data; a frame of an info file; or files
                ``dict(img=PATH, points=PATH, lidar2cam=4x4)``: a dual-fisheye image and an Ouster
                scan, of which those that the model reads are needed, and the calibration, by
                default the identity as in Dur360BEV. A list of them is one batch.

        Returns:
            Det3DDataSample | list: With ``pred_bev``; ``pred_bev.seg`` is (K, R, C) in [0, 1].

        Raises:
            UserError: A file is missing or damaged, or the index is out of range.
        """
        if not isinstance(frames, (list, tuple)):
            return self([frames])[0]
        return self.model.test_step(pseudo_collate([self._load(frame) for frame in frames]))

    def _load(self, frame: Frame) -> dict:
        if isinstance(frame, Mapping):
            return self.pipeline(self._frame_of_files(frame) if {'img', 'points'} & set(frame)
                                 else self._frame_of_info(frame))
        if not 0 <= frame < len(self.dataset):
            raise UserError(f'frame {frame}: the test data has frames 0 to {len(self.dataset) - 1}')
        return self.dataset[int(frame)]

    def _frame_of_files(self, files: Mapping) -> dict:
        for name in files:
            if name not in _FILES:
                raise UserError(f'files of a frame: {name!r} is none{did_you_mean(name, _FILES)}')
        token = Path(files.get('img') or files['points']).stem
        frame = dict(sample_idx=0, token=token, instances=[])
        if 'img' in files:
            image = cv2.imread(str(files['img']))
            if image is None:
                raise UserError(f'{files["img"]}: missing or unreadable image')
            height, width = image.shape[:2]
            frame['images'] = dict(CAM_PANO=dict(
                img_path=str(Path(files['img']).absolute()), height=height, width=width,
                lens='equirect', source_lens='dual_fisheye',
                lidar2cam=np.asarray(files.get('lidar2cam', np.eye(4)), np.float64)))
        if 'points' in files:
            frame['lidar_points'] = dict(lidar_path=str(Path(files['points']).absolute()),
                                         num_pts_feats=9)
        return self._frame_of_info(frame)

    def _frame_of_info(self, info: Mapping) -> dict:
        """A frame as the pipeline expects it; paths relative to the config's data root."""
        metainfo = self.metainfo
        if 'lidar_points' in info and metainfo is None:
            metainfo = self.dataset.metainfo
        return self._reader.parse_frame(copy.deepcopy(dict(info)), metainfo or {})

    @functools.cached_property
    def _reader(self) -> BaseDataset:
        """The test data's class without its frames: it knows its paths and axes."""
        return DATASETS.build({**self.dataset_cfg, 'lazy_init': True, 'test_mode': True,
                               'load_eval_anns': False})
