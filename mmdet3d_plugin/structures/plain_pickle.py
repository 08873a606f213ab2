"""Pickles of plain values, read without running code."""
import pickle
from typing import Any, BinaryIO

_NUMPY = {(f'numpy.{core}.{module}', name) for core in ('core', '_core') for module, name in
          (('multiarray', '_reconstruct'), ('multiarray', 'scalar'), ('numeric', '_frombuffer'))}
_SAFE = _NUMPY | {('numpy', 'ndarray'), ('numpy', 'dtype'), ('_codecs', 'encode')}


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers, text and numpy arrays; any other class or function is refused."""

    def find_class(self, module, name):
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f'it refers to {module}.{name}')
        return super().find_class(module, name)


def load_plain(file: BinaryIO) -> Any:
    """Read the next pickle of a file; one that would run code is refused.

    Raises:
        Exception: Of many kinds, for a pickle that is cut, damaged, or holds anything else.
    """
    return _PlainUnpickler(file).load()
