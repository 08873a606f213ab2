"""Finds what waits for the device: values of tensors that are read on the host."""
import functools
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mmdet3d_plugin

PACKAGE = str(Path(mmdet3d_plugin.__file__).parent)
READS = {'_local_scalar_dense', 'nonzero', 'is_nonzero', 'masked_select', 'equal', 'unique_dim',
         '_unique2', 'allclose', 'repeat_interleave'}
COPIES = ('tolist', 'numpy', 'cpu')  # read memory without an operator


class Syncs(TorchDispatchMode):
    """Functions of ours whose operators wait for values of tensors."""

    def __init__(self):
        super().__init__()
        self.functions = set()

    def __enter__(self):
        for name in COPIES:
            self._watch(name)
        return super().__enter__()

    def __exit__(self, *error):
        for name in COPIES:
            setattr(torch.Tensor, name, getattr(torch.Tensor, name).__wrapped__)
        return super().__exit__(*error)

    def _watch(self, name):
        method = getattr(torch.Tensor, name)

        @functools.wraps(method)
        def watched(*args, **kwargs):
            self.functions.add(self._caller())
            return method(*args, **kwargs)

        watched.__wrapped__ = method
        setattr(torch.Tensor, name, watched)

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
