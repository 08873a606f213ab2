"""Pickles of plain values: what is read, and forged ones that NumPy itself would crash on."""
import io
import pickle
import resource
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest

from data_converter.common import read_split
from mmdet3d_plugin.checkpoints import read_checkpoint
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.plain_pickle import count_tuples, load_plain
from mmdet3d_plugin.structures import load_infos


class Call:
    """Pickled as a call, and a state for what it returns."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def dtype(code, *state):
    return Call(np.dtype, (code, False, True), *([state] if state else []))


def array(code, shape, data, fortran=False):
    return Call(np.core.multiarray._reconstruct, (np.ndarray, (0, ), b'b'),
                (1, shape, code, fortran, data))


def scalar(code, data):
    return Call(np.core.multiarray.scalar, (code, data))


POINTER = b'A' * 8
OBJECTS = dtype('O8', 3, '|', None, None, None, -1, -1, 0)
FORGED = {
    'object scalar': (scalar(OBJECTS, POINTER), "refers to numpy.dtype\\('O8'\\)"),
    'object array': (array(OBJECTS, (1, ), POINTER), "refers to numpy.dtype\\('O8'\\)"),
    'objects in a record': (
        array(dtype('V8', 3, '|', None, ('a', ), dict(a=(OBJECTS, 0)), 8, 1, 16), (1, ), POINTER),
        "refers to numpy.dtype\\('V8'\\)"),
    'code of two': (array(dtype('f8,O'), (1, ), POINTER * 2), "refers to numpy.dtype\\('f8,O'\\)"),
    'state of another size': (
        array(dtype('f8', 3, '<', None, None, None, 1 << 40, 1, 0), (1, ), b''),
        'buffer is too small'),
    'call of ndarray': (Call(np.ndarray, ((1, ), 'O', POINTER)), 'calls numpy.ndarray'),
    'numbers in a call of ndarray': (Call(np.ndarray, ((1 << 40, ), 'f8')), 'calls numpy.ndarray'),
    'shape beyond the bytes': (array(dtype('f8'), (1 << 40, ), b''), 'too small'),
    'shape of a part': (array(dtype('f8'), (1, ), bytes(16)), 'has 8 bytes, its data 16'),
    'no data': (array(dtype('f8'), (1, ), None), 'NoneType'),
    'negative shape': (array(dtype('f8'), (-1, -1), bytes(8)), 'negative|[Ii]nvalid'),
    'overflowing shape': (array(dtype('f8'), (1 << 62, 1 << 62), b''), 'too big|[Mm]aximum'),
    'text without size': (array(dtype('U0'), (1 << 40, ), b''), "refers to numpy.dtype\\('U0'\\)"),
    'no characters': (array(dtype('U1'), (1, ), b'\xff\xff\xff\x7f'), 'invalid maximum character'),
    'dates': (scalar(dtype('M8'), bytes(8)), "refers to numpy.dtype\\('M8'\\)"),
}


def write(value, folder):
    """The value in an info file, and in the pickle of a checkpoint's archive."""
    info, checkpoint = folder / 'x.pkl', folder / 'x.pth'
    info.write_bytes(pickle.dumps(dict(metainfo=value, data_list=[]), 2))
    with zipfile.ZipFile(checkpoint, 'w') as archive:
        archive.writestr('x/data.pkl', pickle.dumps(dict(state_dict={}, extra=value), 2))
        archive.writestr('x/byteorder', 'little')
        archive.writestr('x/version', '3\n')
    return str(info), str(checkpoint)


@pytest.mark.parametrize('name', FORGED)
def test_forged_arrays_are_refused(name, tmp_path):
    value, message = FORGED[name]
    info, checkpoint = write(value, tmp_path)
    with pytest.raises(UserError, match=f'readable info file.*{message}'):
        load_infos(info)
    with pytest.raises(UserError, match=f'readable split file.*{message}'):
        read_split(info)
    with pytest.raises(UserError, match=f'cannot be loaded safely .*{message}'):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_numbers_come_back(protocol, tmp_path):
    values = dict(
        big=np.array([1, -2], '>i2'), columns=np.asfortranarray([[1.5, 2, 3], [4, 5, 6]]),
        none=np.zeros((0, 7), np.float32), flags=np.array([True, False]), single=np.float16(0.5),
        complex=np.array([1 + 2j]), text=np.array(['x', 'yz']), word=np.str_('v1'), whole=7,
        raw=b'\x00\xff', point=np.array(3, np.uint8))
    loaded = load_plain(io.BytesIO(pickle.dumps(values, protocol)))
    assert loaded['big'].tolist() == [1, -2] and loaded['big'].dtype.str[1:] == 'i2'
    assert loaded['columns'].tolist() == [[1.5, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert loaded['none'].shape == (0, 7) and loaded['none'].dtype == np.float32
    assert loaded['flags'].tolist() == [True, False] and loaded['flags'].dtype == bool
    assert loaded['single'] == 0.5 and type(loaded['single']) is np.float16
    assert loaded['complex'].tolist() == [1 + 2j] and loaded['text'].tolist() == ['x', 'yz']
    assert loaded['word'] == 'v1' and loaded['whole'] == 7 and loaded['raw'] == b'\x00\xff'
    assert loaded['point'].shape == () and loaded['point'] == 3
    again = pickle.loads(pickle.dumps(loaded, protocol))
    assert type(again['columns']) is np.ndarray and again['columns'].sum() == 21.5


@pytest.mark.parametrize('content, message', [
    (Call(sys.setrecursionlimit, (10, )), 'refers to sys.setrecursionlimit'),
    (Call(__import__('_codecs').encode, ('x', 'idna')), "encodes text as 'idna'"),
    (Call(np.frombuffer, (b'', )), 'refers to numpy.frombuffer'),
])
def test_nothing_else_is_called(content, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        load_plain(io.BytesIO(pickle.dumps(content, 2)))


DEEP = """
import io, sys, zipfile
from data_converter.common import read_split
from mmdet3d_plugin.checkpoints import read_checkpoint
from mmdet3d_plugin.structures import load_infos
tuples = {'one': b')' + b'\\x85' * 1_000_000, 'marks': b'(' * 300_000 + b't' * 300_000,
          'value': b'U\\x01x)' + b'\\x85' * 300_000,
          'pairs': b'K\\x01' * 300_000 + b')' + b'\\x86' * 300_000}[sys.argv[2]]
key = b'\\x80\\x02}' + tuples + (b's.' if sys.argv[2] == 'value' else b'K\\x01s.')
old, new, info = (f'{sys.argv[1]}/{name}' for name in ('old.pth', 'new.pth', 'x.pkl'))
for path in (old, info):
    with open(path, 'wb') as file:
        file.write(key)
with zipfile.ZipFile(new, 'w') as archive:
    archive.writestr('x/data.PKL' if sys.argv[2] == 'pairs' else 'x/data.pkl', key)
    archive.writestr('x/byteorder', 'little')
    archive.writestr('x/version', '3\\n')
for read, path in ((load_infos, info), (read_split, info), (read_checkpoint, new),
                   (read_checkpoint, old)):
    try:
        read(path)
        print('loaded', path)
    except ValueError as error:
        print('error', str(error)[:150])
"""


@pytest.mark.parametrize('kind', ['one', 'marks', 'pairs', 'value'])
def test_keys_of_deep_tuples_do_not_end_the_process(kind, tmp_path):
    """Their hash calls itself for each, in C: some 100,000 are the whole stack."""
    done = subprocess.run([sys.executable, '-c', DEEP, str(tmp_path), kind], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all(line.startswith('error ') for line in lines), lines


def test_many_tuples_load():
    values = {(n, (n, )): n for n in range(20_000)}
    before = threading.stack_size()
    assert load_plain(io.BytesIO(pickle.dumps(values, 2))) == values
    assert load_plain(io.BytesIO(pickle.dumps(values, 0))) == values
    assert threading.stack_size() == before


def test_an_upper_bound_of_tuples_is_counted():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file = io.BytesIO(b'..' + pickle.dumps([(n, ) * (n % 5 + 1) for n in range(100)], protocol))
        file.seek(2)
        assert 100 <= count_tuples(file) < 300 and file.tell() == 2
    assert count_tuples(io.BytesIO(b'ttttt((')) == 2


def test_no_place_of_the_memo_costs_gigabytes():
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(pickle.UnpicklingError, match='more memory than a file of its size'):
        load_plain(io.BytesIO(b'\x80\x03]r\xff\xff\xff\xff.'))
    assert load_plain(io.BytesIO(b'\x80\x03]r\xff\xff\x00\x00.')) == []
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
