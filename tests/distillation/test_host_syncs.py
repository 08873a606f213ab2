"""A step never waits for the device: no value of a tensor is read on the host."""
import sys
from pathlib import Path

import torch
from mmengine.optim import build_optim_wrapper
from torch.utils._python_dispatch import TorchDispatchMode

import mmdet3d_plugin
from tests.distillation.test_distiller import distiller, term
from tests.factories import batch

PACKAGE = str(Path(mmdet3d_plugin.__file__).parent)
READS = {'_local_scalar_dense', 'nonzero', 'is_nonzero', 'masked_select', 'equal', 'unique_dim',
         '_unique2', 'allclose', 'repeat_interleave'}


class Syncs(TorchDispatchMode):
    """Functions of ours whose operators wait for values of tensors."""

    def __init__(self):
        super().__init__()
        self.functions = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masked = func.overloadpacket.__name__ in ('index', 'index_put', 'index_put_') and any(
            index is not None and index.dtype == torch.bool for index in args[1])
        if func.overloadpacket.__name__ in READS or masked:
            self.functions.add(self._caller())
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _caller():
        frame = sys._getframe()
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        return frame.f_code.co_name if frame else '?'


def test_the_detector_sees_every_way():
    x = torch.arange(3.0)
    for read in (lambda: x[0].item(), lambda: bool(x[0] > 1), lambda: float(x.sum()), x.tolist,
                 x.nonzero, lambda: x[x > 1], lambda: torch.equal(x, x)):
        with Syncs() as syncs:
            read()
        assert syncs.functions
    with Syncs() as syncs:
        ((x - 1).abs().mean() + x.index_select(0, torch.tensor([1]))).sum()
    assert not syncs.functions


def test_a_distillation_step_reads_no_value(teacher_files):
    model = distiller(teacher_files, terms=dict(
        student=term(weight='learned'), assistant=term(student='assistant.head.segmentation')))
    model.init_weights()
    model.train()
    optimizer = build_optim_wrapper(model, dict(optimizer=dict(type='AdamW', lr=1e-3)))
    data = model.data_preprocessor(batch(), True)
    sum(model(**data, mode='loss').values()).backward()  # builds the constant geometry
    with Syncs() as syncs:
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.update_params(loss)
    # how many voxels hold a point decides on the size of what the teacher's LiDAR branch makes
    assert syncs.functions <= {'occupied_voxels'}
