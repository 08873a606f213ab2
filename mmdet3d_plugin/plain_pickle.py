"""Pickles of plain values and of NumPy arrays, read without running code."""
import contextlib
import os
import pickle
import re
from typing import Any, BinaryIO, Iterator

import numpy as np


class DType:
    """Stands for ``numpy.dtype``: numbers or text; of its state only the byte order counts."""

    __slots__ = ('dtype', )

    def __init__(self, code: str, *_) -> None:
        if not re.fullmatch(r'[biufc]\d{1,2}|[SU][1-9]\d{0,5}', code):
            raise pickle.UnpicklingError(f'it refers to numpy.dtype({code[:40]!r})')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class Array(np.ndarray):
    """Stands for ``numpy.ndarray``, which pickles fill after they made it; not to be called."""

    def __new__(cls, *_):
        raise pickle.UnpicklingError('it calls numpy.ndarray')

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        array = _view(data, dtype, shape, 'F' if fortran else 'C')
        super().__setstate__((1, array.shape, array.dtype, bool(fortran), bytes(data)))

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.view(np.ndarray).__reduce_ex__(protocol)


def _reconstruct(_kind: Any, _shape: Any, _code: Any) -> Array:
    return np.ndarray.__new__(Array, 0)


def _view(data: bytes, dtype: DType, shape: tuple, order: str) -> np.ndarray:
    """An array of exactly the bytes that are there."""
    array = np.ndarray(shape, dtype.dtype, data, order=order)
    if array.nbytes != len(data):
        raise pickle.UnpicklingError(f'an array of shape {array.shape} has {array.nbytes} bytes, '
                                     f'its data {len(data)}')
    if array.dtype.kind == 'U':
        array.tolist()  # an error where a number is no character
    return array


def _frombuffer(data: bytes, dtype: DType, shape: tuple, order: str) -> np.ndarray:
    return _view(data, dtype, shape, order).copy(order)


def _scalar(dtype: DType, data: bytes) -> np.generic:
    return _view(data, dtype, (), 'C')[()]


def _no_bytes() -> bytes:
    """Protocols before 3 write empty bytes as a call."""
    return b''


def _encode(text: str, encoding: str) -> bytes:
    """Protocols before 3 write other bytes as text."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it encodes text as {encoding!r:.40}')
    return text.encode('latin1')


NUMPY = {'numpy.ndarray': Array, 'numpy.dtype': DType} | {
    f'numpy.{core}.{name}': stand_in for core in ('core', '_core') for name, stand_in in
    {'multiarray._reconstruct': _reconstruct, 'multiarray.scalar': _scalar,
     'numeric._frombuffer': _frombuffer}.items()} | {
    f'{module}.bytes': _no_bytes for module in ('builtins', '__builtin__')}
"""What a pickle of arrays and numbers of NumPy names -> what is called in its place.

NumPy's own functions trust a pickle: they read its bytes as pointers if it says so.
"""


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers, text and arrays; any other class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        known = {**NUMPY, '_codecs.encode': _encode}.get(f'{module}.{name}')
        if known is None:
            raise pickle.UnpicklingError(f'it refers to {module}.{name}')
        return known


def load_plain(file: BinaryIO) -> Any:
    """Read the next pickle of a file; one that would run code is refused.

    Raises:
        Exception: Of many kinds, for a pickle that is cut, damaged, or holds anything else.
    """
    with _bounded_memory(file):
        return _PlainUnpickler(file).load()


@contextlib.contextmanager
def _bounded_memory(file: BinaryIO) -> Iterator[None]:
    """Let a pickle take 1 GiB and a hundred times its bytes; on Linux alone.

    One wrong byte may name the place 4,000,000,000 of the unpickler's memo, which is an array: it
    would take 64 GiB.
    """
    try:
        import resource
        with open('/proc/self/statm') as status:
            now = int(status.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    old, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = now + (1 << 30) + 100 * size
    if old == resource.RLIM_INFINITY or limit < old:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    except MemoryError as error:
        raise pickle.UnpicklingError('it asks for more memory than a file of its size') from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (old, hard))
