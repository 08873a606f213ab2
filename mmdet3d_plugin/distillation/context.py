"""What terms, regions and samplers know of a training step."""
import pickle
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable, Dict, Hashable, List, Mapping, Optional, Sequence

import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from ..errors import UserError
from ..geometry import BEVGrid, CameraRig


class Shared:
    """A part whose results several terms share where their settings are equal."""

    @cached_property
    def key(self) -> Hashable:
        """Equal for parts of one class with equal settings."""
        return type(self), pickle.dumps(vars(self))


@dataclass
class Context:
    """One batch of a distillation.

    Attributes:
        inputs (dict): The batch, as the student reads it.
        samples (list): With ground truth, in the frame of the grid (after augmentation).
        roles (dict): The models by name: ``student``, ``assistant``, the teachers.
        taps (Mapping): Tapped tensors by address.
        grid (BEVGrid, optional): Of the student.
        iteration (int): Number of training iterations done.
    """
    inputs: Mapping[str, Any]
    samples: Sequence[Det3DDataSample]
    roles: Mapping[str, nn.Module]
    taps: Mapping[str, Tensor]
    grid: Optional[BEVGrid] = None
    iteration: int = 0
    _results: Dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def rig(self) -> CameraRig:
        """The newest cameras; they project points of the augmented scene."""
        return self.inputs['rig']

    @property
    def points(self) -> List[Tensor]:
        """LiDAR points of each sample, (P, >=3), metres."""
        return self.inputs['points']

    @cached_property
    def boxes(self) -> List[Tensor]:
        """Annotated boxes of each sample, (N, 7): gravity centre, length, width, height, yaw."""
        boxes = [self._instances(sample).bboxes_3d for sample in self.samples]
        return [torch.cat([box.gravity_center, box.tensor[:, 3:7]], 1) for box in boxes]

    @cached_property
    def labels(self) -> List[Tensor]:
        """Class of each box, (N,) int64."""
        return [self._instances(sample).labels_3d for sample in self.samples]

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """A result that several terms of this step share: computed for the first of them."""
        if key not in self._results:
            self._results[key] = compute()
        return self._results[key]

    @staticmethod
    def _instances(sample: Det3DDataSample):
        if 'gt_instances_3d' not in sample:
            raise UserError('a term needs boxes, but the sample has no gt_instances_3d; let '
                            'PackBEVInputs pack annotated frames')
        return sample.gt_instances_3d
