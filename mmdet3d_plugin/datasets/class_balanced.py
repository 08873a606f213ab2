"""As many frames of each class."""
import logging
from typing import Any, List

import numpy as np
from mmdet3d.datasets import CBGSDataset
from mmdet3d.registry import DATASETS
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..errors import UserError


@DATASETS.register_module()
class CBGSBEVDataset(CBGSDataset):
    """Class-balanced sampling of frames, mmdet3d's ``CBGSDataset`` with the same draws.

    Unlike there, classes without an object are left out, with a warning, and the seed of an index
    (see :class:`BEVDataset`) reaches the data set, so that a resumed training goes on exactly.

    Args:
        dataset (dict | BEVDataset): The data set.
        seed (int): Of the frames that are drawn, once.
        **kwargs: See ``CBGSDataset``.

    Raises:
        UserError: No frame has an object.
    """

    def __init__(self, dataset, seed: int = 0, **kwargs):
        self.seed = seed
        super().__init__(dataset, **kwargs)

    def _get_sample_indices(self, dataset: BaseDataset) -> List[int]:
        frames_of = {name: [] for name in self.metainfo['classes']}
        names = list(frames_of)
        for n in range(len(dataset)):
            for label in dataset.get_cat_ids(n):
                frames_of[names[label]].append(n)
        total = sum(map(len, frames_of.values()))
        if not total:
            raise UserError(f'CBGSBEVDataset: no frame of {dataset.ann_file} has an object of '
                            f'{", ".join(names)}; choose a split with annotations')
        empty = [name for name, frames in frames_of.items() if not frames]
        if empty:
            print_log(f'CBGSBEVDataset: no object of {", ".join(empty)} in {dataset.ann_file}; the '
                      'other classes are balanced', 'current', logging.WARNING)
        share = 1.0 / (len(names) - len(empty))
        draw = np.random.RandomState(self.seed)  # noqa: NPY002 (mmdet3d's draws)
        drawn = [draw.choice(frames, int(len(frames) * (share / (len(frames) / total))))
                 for frames in frames_of.values() if frames]
        return np.concatenate(drawn).tolist()

    def __getitem__(self, idx: int) -> Any:
        """A frame; the index keeps its seed."""
        return self.dataset[idx - int(idx) + self._get_ori_dataset_idx(idx)]
