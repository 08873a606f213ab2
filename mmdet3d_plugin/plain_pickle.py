"""Pickles of plain values and of NumPy arrays, read without running code."""
import contextlib
import os
import pickle
import re
import threading
from concurrent.futures import Future
from typing import Any, BinaryIO, Callable, Iterator, Type

import numpy as np

_FEW = 10_000
_STACK_OF_A_TUPLE = 200  # bytes; the hash of a tuple in a tuple takes 64 to 100


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


class _Objects:
    """Stands for ``numpy.dtype('O')``; bytes of such an array would be pointers."""

    __slots__ = ()

    def __setstate__(self, _: tuple) -> None:
        pass


def _dtype_or_objects(code: str, *_: Any) -> Any:
    return _Objects() if re.fullmatch(r'O\d?', code) else DType(code)


class Array(np.ndarray):
    """Stands for ``numpy.ndarray``, which pickles fill after they made it; not to be called.

    One of objects stays empty; its attribute ``objects`` is the list that the pickle has.
    """

    def __new__(cls, *_):
        raise pickle.UnpicklingError('it calls numpy.ndarray')

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(dtype, _Objects):
            if type(data) is not list:
                raise pickle.UnpicklingError('it has an array of objects without a list of them')
            self.objects = data
            return
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


class _ObjectUnpickler(_PlainUnpickler):
    """Reads arrays of objects too."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('numpy', 'dtype'):
            return _dtype_or_objects
        return super().find_class(module, name)


def load_objects(file: BinaryIO) -> list:
    """Read a ``.npy`` file of objects, as ``np.save`` makes it of a dict, without running code.

    Args:
        file: Open; its objects are plain values and arrays as in :func:`load_plain`.

    Returns:
        list: The objects, in the order of memory; of a dict alone it is the only one.

    Raises:
        Exception: Of many kinds, for a file that is cut, damaged, or holds anything else.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise pickle.UnpicklingError(f'it is npy of version {version}')
    header = (np.lib.format.read_array_header_1_0 if version == (1, 0) else
              np.lib.format.read_array_header_2_0)
    if header(file)[2] != np.dtype(object):
        raise pickle.UnpicklingError('it has no objects, but numbers')
    content = load_plain(file, _ObjectUnpickler)
    if not isinstance(content, Array) or not hasattr(content, 'objects'):
        raise pickle.UnpicklingError('it has no array of objects')
    return content.objects


def load_plain(file: BinaryIO, unpickler: Type[_PlainUnpickler] = _PlainUnpickler) -> Any:
    """Read the next pickle of a file; one that would run code is refused.

    Raises:
        Exception: Of many kinds, for a pickle that is cut, damaged, or holds anything else.
    """
    tuples = count_tuples(file)
    with _bounded_memory(file, tuples):
        return with_stack_for(tuples, unpickler(file).load)


def count_tuples(file: BinaryIO) -> int:
    """An upper bound of the tuples that the rest of a file makes, which stays where it is."""
    place, short, long, marks = file.tell(), 0, 0, 0
    for block in iter(lambda: file.read(1 << 20), b''):
        short += sum(map(block.count, (pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)))
        long += block.count(pickle.TUPLE)
        marks += block.count(pickle.MARK)
    file.seek(place)
    return short + min(long, marks)


def with_stack_for(tuples: int, load: Callable[[], Any]) -> Any:
    """Call an unpickler that makes so many tuples at most, each perhaps within the next.

    A tuple that is a key is hashed: by C code that calls itself for each tuple within it, and
    counts no recursion. Where they are many, a thread with a stack for all of them runs it.

    Raises:
        UnpicklingError: There is no memory for that stack.
        RecursionError: The content is nested so deeply that other code could not hash it.
    """
    if tuples < _FEW:
        return load()
    result: Future = Future()

    def run() -> None:
        try:
            content = load()
            _DepthPickler(_Nowhere()).dump(content)
            result.set_result(content)
        except BaseException as error:
            result.set_exception(error)

    before = threading.stack_size(_stack_bytes(tuples))
    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as error:
        raise pickle.UnpicklingError(f'there is no memory for {tuples} tuples within one '
                                     'another') from error
    finally:
        threading.stack_size(before)
    return result.result()


class _Nowhere:

    def write(self, _: bytes) -> None:
        pass


class _DepthPickler(pickle.Pickler):
    """Goes through containers, at the speed of C; an error where they are nested too deeply."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, dict):
            return NotImplemented
        return int, (getattr(value, '__dict__', None), )


def _stack_bytes(tuples: int) -> int:
    return (8 << 20) + (tuples * _STACK_OF_A_TUPLE >> 16 << 16)


@contextlib.contextmanager
def _bounded_memory(file: BinaryIO, tuples: int) -> Iterator[None]:
    """Let a pickle take 1 GiB, a hundred times its bytes, and its stack; on Linux alone.

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
    limit = now + (1 << 30) + 100 * size + _stack_bytes(tuples)
    if old == resource.RLIM_INFINITY or limit < old:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    except MemoryError as error:
        raise pickle.UnpicklingError('it asks for more memory than a file of its size') from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (old, hard))
