"""Whatever is in a small file, its reader accepts it or ends with an error of the user.

FUZZ_SEED sets other damages.
"""
import copy
import hashlib
import io
import json
import os
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mmdet3d_plugin.deployment.packaging import first_frame
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.experiments.experiment import Experiment, Training
from tests.experiments.test_experiment_files import BEGUN, FILE, RESULT
from tests.helpers.damage import cut, flipped
from tests.tools.test_rigs import GOOD, tool  # noqa: F401

SEED = os.environ.get('FUZZ_SEED', '13')
SECONDS = [pytest.param(1, id='quick'), pytest.param(24, id='long', marks=pytest.mark.slow)]
VALUES = (float('nan'), float('inf'), 1e300, -1, 0, 2 ** 70, 10 ** 400, 'x', '', '1', 'a\0', '..',
          None, True, [], {}, [[1.0]], [[[]]], -0.5, {'': 0}, 'é' * 5000)
META = dict(
    format=3, inputs=dict(
        images=dict(shape=['batch', 1, 3, 8, 16]), lidar2cam=dict(shape=[1, 4, 4]),
        lens=dict(shape=[1, 2], columns=['fov_up', 'fov_down'])),
    outputs=dict(segmentation={}), classes=['car'], thresholds=[0.5], camera_rows=[[0]],
    calibration=dict(lidar2cam=[np.eye(4).tolist()], lens=[[0.4, -0.4]]),
    preprocessing=dict(kind='panorama', rows=[0, 8], images=dict(CAM=[8, 16])))
RIG_OF = dict(images=dict(CAM=dict(height=8, width=16, lens='equirect',
                                   lidar2cam=np.eye(4).tolist(), fov_up=0.4, fov_down=-0.4)))


def damaged(rng, content):
    """JSON text of the content with one to three values replaced, removed or repeated, or cut."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        node = content
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                break
            key = rng.choice(keys)
            if not isinstance(node[key], (dict, list)) or rng.random() < 0.15:
                if rng.random() < 0.2:
                    del node[key]
                elif isinstance(node, dict) and rng.random() < 0.1:
                    node[rng.choice(('x', '', '..', 'a/b', 'é\0'))] = node[key]
                else:
                    node[key] = copy.deepcopy(rng.choice(VALUES))
                break
            node = node[key]
    text = json.dumps(content)
    if rng.random() < 0.1:
        text = text[:rng.randrange(len(text))]
    if rng.random() < 0.05:
        text = rng.choice(('[' * 100_000, '{"a":' * 50_000, '1' * 5000, 'null', '', '"x"'))
    return text


def fuzz(seconds, attempt):
    """Call ``attempt(rng)`` with one generator after the other; True where it was accepted."""
    end, accepted, number = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        rng = random.Random(f'{SEED} {number}')
        begin = time.process_time()
        try:
            accepted += bool(attempt(rng))
        except Exception as error:
            raise AssertionError(f'seed {SEED}, round {number}') from error
        assert time.process_time() - begin < 3, f'seed {SEED}, round {number}: slow'
        number += 1
    assert 0 < accepted < number


def signed(text):
    """A description with the hash of its content, where it has any."""
    try:
        content = dict(json.loads(text))
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        return json.dumps(dict(content, description_sha256=digest.hexdigest()))
    except (ValueError, TypeError, RecursionError):
        return text


def accepts(function, kind=UserError):
    try:
        function()
    except kind as error:
        assert '\n' not in str(error) and len(str(error)) < 1500, str(error)[:3000]
        return False
    return True


@pytest.mark.parametrize('seconds', SECONDS)
def test_calibrations(seconds, tmp_path):
    path = tmp_path / 'rig.json'

    def attempt(rng):
        path.write_text(damaged(rng, dict(images=GOOD)))
        return accepts(lambda: first_frame(SimpleNamespace(dataset_cfg=None), str(path)))

    fuzz(seconds, attempt)


@pytest.mark.parametrize('seconds', SECONDS)
def test_files_beside_an_exported_model(seconds, tool, tmp_path, monkeypatch):  # noqa: F811
    """Their hashes fit, as if somebody had made them to do harm; calibrations of it, too."""
    monkeypatch.setattr(tool, '_onnxruntime', lambda *args: None)
    path, packed = tmp_path / 'm.onnx', io.BytesIO()
    path.write_bytes(b'model')
    np.savez_compressed(packed, colours=np.zeros((1, 3), np.uint8), ground=np.zeros(3, np.uint8))

    def attempt(rng):
        arrays = packed.getvalue()
        if rng.random() < 0.3:
            arrays = cut(rng, arrays) if rng.random() < 0.2 else flipped(rng, arrays)
        (tmp_path / 'm.onnx.npz').write_bytes(arrays)
        hashes = dict(sha256=hashlib.sha256(b'model').hexdigest(),
                      arrays_sha256=hashlib.sha256(arrays).hexdigest())
        content = dict(META, **hashes)
        (tmp_path / 'm.onnx.json').write_text(signed(
            damaged(rng, content) if rng.random() < 0.5 else json.dumps(content)))
        rig = RIG_OF if rng.random() < 0.5 else META['calibration']
        (tmp_path / 'rig.json').write_text(
            damaged(rng, rig) if rng.random() < 0.7 else json.dumps(rig))
        return accepts(lambda: tool.calibrate(tool.Exported(path), tmp_path / 'rig.json'),
                       tool.InputError)

    fuzz(seconds, attempt)


@pytest.mark.parametrize('seconds', SECONDS)
def test_states_of_trainings(seconds, tmp_path):
    (tmp_path / 'last_checkpoint').touch()
    training = Training('a', 0, tmp_path, config=None)
    training.__dict__['fingerprint'] = 'f'

    def attempt(rng):
        for name, good in (('begun', BEGUN), ('result', RESULT)):
            (tmp_path / f'{name}.json').write_text(
                damaged(rng, good) if rng.random() < 0.7 else json.dumps(good))
        return accepts(training.status)

    fuzz(seconds, attempt)


@pytest.mark.parametrize('seconds', SECONDS)
def test_experiment_files(seconds, monkeypatch):
    good = dict(FILE, baseline='a', paper='p', others=dict(b=[1, None]), runs=dict(
        FILE['runs'], b=dict(config='c.py', teacher='a', options={}, columns=dict(x=1))))
    whole = {}
    monkeypatch.setattr('mmdet3d_plugin.experiments.experiment.load_config', lambda path: (
        SimpleNamespace(_cfg_dict=SimpleNamespace(to_dict=lambda: copy.deepcopy(whole)))))

    def attempt(rng):
        try:
            content = json.loads(damaged(rng, good))
        except (ValueError, RecursionError):
            return False
        if not isinstance(content, dict):
            return False
        whole.clear()
        whole.update(content)
        return accepts(lambda: Experiment.read('x.py'))

    fuzz(seconds, attempt)
