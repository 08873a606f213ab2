"""What every task head is to a model, to training and to deployment."""
from abc import ABCMeta, abstractmethod
from typing import Dict, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule
from torch import Tensor

from ...errors import UserError, did_you_mean
from ...geometry import BEVGrid


class HeadOutput(NamedTuple):
    """An output of a deployed head.

    Attributes:
        shape (tuple): Of one sample.
        meaning (str): Of its values, in one line.
        drawing (str, optional): How images show it: ``'objects'``, or ``'map'``, in layers.
    """
    shape: Tuple[int, ...]
    meaning: str
    drawing: Optional[str] = None


class BEVHead(BaseModule, metaclass=ABCMeta):
    """A task on the BEV features. The model calls it and knows no task itself.

    Args:
        grid (BEVGrid | dict, optional): The model's grid (passed by the model).

    Attributes:
        gt_fields (tuple): Ground truth that :meth:`loss` reads from a data sample, as
            ``'field.name'``, such as ``'gt_bev.seg'`` or ``'gt_instances_3d.bboxes_3d'``.
        pred_fields (tuple): Fields of a data sample that a prediction fills.
        class_names (tuple): Of the classes, where the head's config has names.
    """
    gt_fields: Tuple[str, ...] = ()
    pred_fields: Tuple[str, ...] = ()
    class_names: Tuple[str, ...] = ()

    def __init__(self, grid: Union[BEVGrid, dict, None] = None, init_cfg=None):
        super().__init__(init_cfg)
        self.grid = BEVGrid(**grid) if isinstance(grid, dict) else grid

    @abstractmethod
    def forward(self, features: Tuple[Tensor, ...]) -> Dict[str, Tensor]:
        """The BEV encoder's maps to raw outputs by name."""

    @abstractmethod
    def loss(self, outs: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Dict[str, Tensor]:
        """Raw outputs and ground truth to scalars; those named ``loss`` are minimised."""

    def predict(self, outs: Dict[str, Tensor],
                samples: Sequence[Det3DDataSample]) -> Sequence[Det3DDataSample]:
        """Raw outputs to predictions: fill ``pred_fields`` of the samples, and return them."""
        return self.fill(self.decode(outs), samples)

    @abstractmethod
    def fill(self, decoded: Dict[str, Tensor],
             samples: Sequence[Det3DDataSample]) -> Sequence[Det3DDataSample]:
        """Fill ``pred_fields`` of the samples from decoded outputs, in place."""

    @abstractmethod
    def decode(self, outs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Raw outputs to those of a deployed network, float32; standard operators only."""

    @abstractmethod
    def outputs(self) -> Dict[str, HeadOutput]:
        """What :meth:`decode` returns, by name."""

    def decoding(self) -> Dict[str, dict]:
        """How a program without torch makes objects of the outputs: plain values, by the prefix of
        the outputs' names; empty where the outputs are what is predicted.
        """
        return {}

    @abstractmethod
    def keep_outputs(self, names: Optional[Sequence[str]] = None) -> Tuple[str, ...]:
        """Remove the losses and every other output, in place, for deployment.

        Args:
            names (tuple, optional): Of :meth:`outputs`. Default: those that a prediction needs.

        Returns:
            tuple: Names of the outputs that are left.

        Raises:
            UserError: There is no such output.
        """

    def check_outputs(self, names: Optional[Sequence[str]]) -> None:
        """Raise a UserError if the list is empty or has an unknown output; None is allowed."""
        known = self.outputs()
        if names is not None and not names:
            raise UserError(f'tasks: none is named; the head has {", ".join(known)}')
        for name in names or ():
            if name not in known:
                raise UserError(f'tasks: the head has no task {name!r}{did_you_mean(name, known)}')


class BEVMapsHead(BEVHead):
    """A head whose ground truth and predictions are maps of the grid's cells."""

    pred_fields = ('pred_bev', )

    def stack_gt(self, samples: Sequence[Det3DDataSample], name: str) -> Tensor:
        """A map of ``gt_bev``, (B, C, rows, columns).

        Raises:
            UserError: A sample has no such map, or one of another grid.
        """
        for sample in samples:
            if name not in sample.get('gt_bev', {}):
                raise UserError(f'training needs ground truth, but the sample has no gt_bev.{name};'
                                ' put RasterizeBEV or RasterizeMap before PackBEVInputs in the '
                                'pipeline')
            self._check_grid(sample.metainfo.get('bev_grid'))
        return torch.stack([sample.gt_bev.get(name) for sample in samples])

    def _check_grid(self, other: Optional[dict]) -> None:
        if None not in (other, self.grid) and not self.grid.same_bev(BEVGrid(**other)):
            raise UserError(
                f'the data set rasterises on {BEVGrid(**other)}, but model.grid is {self.grid}; '
                'set RasterizeBEV.grid and model.grid to the same values')
