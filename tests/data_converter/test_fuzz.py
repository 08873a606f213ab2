"""Whatever happens to the files, converter and data set end with an error of the user or go on."""
import json
import os
import pickle
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.structures import load_infos, vector_map
from tests.helpers import layouts
from tests.helpers.damage import cut, flipped

VALUES = (float('nan'), float('inf'), 1e300, -1, 0, 2 ** 70, 'x', '', None, True, [], {}, [[1.0]],
          'tok', -0.5)
WORDS = ('nan', 'inf', '1e400', '-1', '0', 'x', '', '99999999999999999999', '0.5', '1e300', 'é',
         '-7', '3')


# What can happen to a file ----------------------------------------------------------------------


def flip(rng, path):
    path.write_bytes(flipped(rng, path.read_bytes()))


def truncate(rng, path):
    path.write_bytes(cut(rng, path.read_bytes()))


def delete(rng, path):
    path.unlink()


def empty(rng, path):
    path.write_bytes(b'')


def zeros(rng, path):
    path.write_bytes(bytes(path.stat().st_size))


def text(rng, path):
    path.write_text(rng.choice(('no such thing\n', '[]', '{}', 'null', '<a/>', '1 2 3\n', '[1]')))


def nan(rng, path):
    values = np.frombuffer(path.read_bytes()[:path.stat().st_size // 4 * 4], '<f4').copy()
    values[rng.randrange(max(1, len(values))):][:3] = np.nan
    path.write_bytes(values.tobytes())


def word(rng, path):
    """Replace, remove or repeat a word or a line of a text."""
    lines = path.read_text(errors='replace').splitlines(keepends=True)
    at = rng.randrange(len(lines)) if lines else 0
    if lines and rng.random() < 0.3:
        lines[at:at + 1] = rng.choice(([], [lines[at]] * 2, ['\n'], lines[at - 1:at] or []))
    elif lines:
        words = [m.span() for m in re.finditer(r'[-\w.+]+', lines[at])] or [(0, 0)]
        start, stop = rng.choice(words)
        lines[at] = lines[at][:start] + rng.choice(WORDS) + lines[at][stop:]
    path.write_text(''.join(lines))


def value(rng, path):
    """Replace or remove a value of a JSON or info file."""
    plain = path.suffix == '.json'
    try:
        content = json.loads(path.read_text()) if plain else pickle.loads(path.read_bytes())
    except Exception:  # damaged before
        return
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.1:
            break
        node = node[key]
    if rng.random() < 0.2:
        del node[key]
    elif isinstance(node, list) and rng.random() < 0.2:
        node.insert(0, node[key])
    else:
        node[key] = rng.choice(VALUES)
    path.write_bytes(json.dumps(content).encode() if plain else pickle.dumps(content))


ANY = (flip, truncate, delete, empty, zeros, text)
MORE = {'.json': (value,) * 12, '.txt': (word,) * 8, '.xml': (word,) * 12, '.yaml': (word,) * 12,
        '.bin': (nan,) * 2}


def damage(rng, root, info_files):
    """Damage one to three files; says how."""
    story = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kinds = {}
        for path in sorted(p for p in root.rglob('*') if p.is_file()):
            if info_files == (path.suffix == '.pkl' and 'infos' in path.name) or (
                    info_files and path.suffix in ('.png', '.jpg', '.bin')):
                numbered = re.sub(r'\d{4,}', '#', str(path.relative_to(root)))
                kinds.setdefault(numbered, []).append(path)
        path, other = (rng.choice(kinds[rng.choice(sorted(kinds))]) for _ in range(2))
        for mine in (path, other):  # no longer a link to the original
            data = mine.read_bytes()
            mine.unlink()
            mine.write_bytes(data)
        if rng.random() < 0.05:
            mine, its = path.read_bytes(), other.read_bytes()
            path.write_bytes(its)
            other.write_bytes(mine)
            story.append(f'swap {path.relative_to(root)} and {other.relative_to(root)}')
            continue
        if path.suffix == '.pkl' and 'infos' in path.name:
            how = rng.choice((truncate, delete, empty, zeros, text, *(value,) * 12))
        else:
            how = rng.choice(ANY + MORE.get(path.suffix, ()))
        how(rng, path)
        story.append(f'{how.__name__} {path.relative_to(root)}')
    return story


# What must come of it ---------------------------------------------------------------------------


def attempt(function, *args, **kwargs):
    """The result of a call, or the user's error in its place."""
    try:
        return function(*args, **kwargs)
    except UserError as error:
        message = str(error)
        assert message.strip() and '\n' not in message and len(message) < 2000, message
        return error


def load_all(layout, root, out):
    for split in ('train', 'val'):
        if not layouts.infos(layout, out, split).exists():
            continue
        data = attempt(layouts.dataset, layout, root, out, split, max_bad_frames=2)
        for n in range(0 if isinstance(data, UserError) else len(data)):
            frame = attempt(data.__getitem__, n)
            if not isinstance(frame, UserError):
                assert all(x.float().isfinite().all() for x in frame['inputs'].values())
                seg = frame['data_samples'].gt_bev.seg
                assert ((seg == 0) | (seg == 1)).all()
    if layout == 'nuscenes' and layouts.infos(layout, out).exists():
        vector_map._load.cache_clear()
        maps = dict(type='RasterizeMap', data_root=str(root), grid=layouts.TARGETS[0]['grid'])
        data = attempt(layouts.dataset, layout, root, out, pipeline=[
            dict(type='LoadMultiViewImages'), maps, layouts.TARGETS[1]])
        if not isinstance(data, UserError):
            attempt(data.__getitem__, 0)


def one_round(rng, layout, root):
    """Damage a set after its conversion, or before; yields what was done, then does the rest."""
    late = rng.random() < 0.4
    yield from damage(rng, root, info_files=late)
    if late:
        load_all(layout, root, root / 'infos')
        return
    out, check = root / 'out', rng.random() < 0.5
    done = attempt(layouts.convert, layout, root, out, 1, check)
    written = sorted(out.rglob('*.pkl')) if out.exists() else []
    assert isinstance(done, UserError) or len(written) == 2
    assert not out.exists() or not list(out.rglob('.*.tmp'))
    for path in written:
        assert load_infos(str(path))['data_list']
    load_all(layout, root, out)


def fuzz(raw, folder, seed, rounds):
    """Damage files and convert, in rounds that follow from the seed."""
    init_default_scope('mmdet3d')
    originals = {}
    for layout in layouts.LAYOUTS:
        originals[layout] = shutil.copytree(raw(layout), folder / 'original' / layout)
        layouts.convert(layout, originals[layout], originals[layout] / 'infos')

    def too_long(*_):
        raise TimeoutError('more than 30 seconds')

    signal.signal(signal.SIGALRM, too_long)
    for number in range(rounds):
        rng = random.Random(f'{seed} {number}')
        layout = rng.choice(layouts.LAYOUTS)
        shutil.rmtree(folder / 'set', ignore_errors=True)
        shutil.copytree(originals[layout], folder / 'set', copy_function=os.link)
        story = []
        signal.alarm(30)
        try:
            story.extend(one_round(rng, layout, folder / 'set'))
        except Exception as error:
            pytest.fail(f'seed {seed}, round {number}, {layout}: {story}: '
                        f'{type(error).__name__}: {error}')
        finally:
            signal.alarm(0)


def test_damaged_files(raw, tmp_path):
    """FUZZ_SEED and FUZZ_ROUNDS set other and more rounds."""
    fuzz(raw, tmp_path, os.environ.get('FUZZ_SEED', '81'), int(os.environ.get('FUZZ_ROUNDS', 30)))


@pytest.mark.slow
def test_many_damaged_files(raw, tmp_path):
    """Two minutes; another seed each time unless FUZZ_SEED sets it."""
    fuzz(raw, tmp_path, os.environ.get('FUZZ_SEED', str(time.time_ns())), 300)
