"""The export of a student, from its command to a program without torch."""
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmdet3d.registry import MODELS

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.checkpoints import save_checkpoint
from mmdet3d_plugin.deployment.packaging import first_frame, save_description
from mmdet3d_plugin.engine import load_config

ROOT = Path(__file__).resolve().parents[2]
DISTILL = 'configs/kd360/kd360_distill_r18_500it_toytown.py'
STUDENT = 'configs/kd360/kd360_student_r18_500it_toytown.py'
WITHOUT_TORCH = '''
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'mmengine', 'mmdet3d', 'mmdet', 'mmcv',
                                  'mmdet3d_plugin'):
            raise ImportError(f'{name} is not installed')
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
'''


def start(tool, monkeypatch, *arguments):
    """Run a tool in this process."""
    spec = importlib.util.spec_from_file_location(tool, ROOT / 'tools' / f'{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    module.main()


@pytest.fixture(scope='module')
def exported(toytown, tmp_path_factory):
    """A distillation's checkpoint as an ONNX student: the model's path and the checkpoint."""
    folder = tmp_path_factory.mktemp('exported')
    torch.manual_seed(3)
    model = MODELS.build(load_config(DISTILL).model)
    save_checkpoint(dict(state_dict=model.state_dict()), folder / 'iter_1.pth')
    with pytest.MonkeyPatch.context() as patch:
        start('export_onnx', patch, DISTILL, folder / 'iter_1.pth', folder / 'student.onnx',
              '--time', 1, '--test', '--cfg-options',
              f'test_dataloader.dataset.data_root={toytown}')
    return folder / 'student.onnx', folder / 'iter_1.pth'


@pytest.fixture
def infer():
    """Runs the other tool in a Python that has no torch."""
    def run(*arguments):
        command = [sys.executable, '-c', WITHOUT_TORCH, ROOT / 'tools' / 'infer_onnx.py',
                   *arguments]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    return run


def images_of(toytown):
    return toytown / 'image' / 'data'


def test_the_description(exported):
    path, checkpoint = exported
    meta = json.loads(Path(f'{path}.json').read_text())
    assert meta['inputs'] == dict(images=dict(
        shape=['batch', 1, 3, 128, 512], dtype='uint8', colour='RGB', range=[0, 255],
        normalised_inside=meta['inputs']['images']['normalised_inside']))
    normalised = meta['inputs']['images']['normalised_inside']
    assert normalised['mean'] == pytest.approx([74.9955, 77.928, 80.274], abs=1e-3)
    assert normalised['std'] == pytest.approx([90.8055, 93.534, 95.5995], abs=1e-3)
    assert list(meta['outputs']) == ['segmentation']
    assert meta['outputs']['segmentation']['shape'] == ['batch', 1, 100, 100]
    assert meta['classes'] == ['car+bus+truck'] and meta['thresholds'] == [0.5]
    assert meta['grid']['rows'] == '-x' and meta['grid']['shape'] == [100, 100]
    assert meta['preprocessing'] == dict(
        kind='remap', nearest=False, images=dict(CAM_PANO=[160, 320]))
    assert meta['calibration']['static'] and meta['runtime'] == 'onnx'
    for key, file in (('sha256', path), ('checkpoint_sha256', checkpoint)):
        assert meta[key] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert meta['versions']['torch'] == metadata.version('torch')  # '2.11.0' of '2.11.0+cu130'
    assert meta['differs_from_torch'] < 1e-3
    assert list(meta['milliseconds']) == ['model in torch', 'made ready in torch', 'exported']
    assert all(0 < spent['min'] <= spent['median'] for spent in meta['milliseconds'].values())
    assert meta['metrics']['exported'] == pytest.approx(meta['metrics']['torch'], abs=0.01)
    assert set(meta['metrics']['torch']) == {'bev/IoU100', 'bev/IoU50', 'bev/IoU20'}
    names = [node.name for node in onnx.load(path).graph.node]
    assert not any('centerness' in name or 'offset' in name for name in names)


def test_inference_without_torch_equals_the_model(exported, toytown, infer, tmp_path):
    path, checkpoint = exported
    done = infer(path, images_of(toytown), tmp_path / 'out', '--maps', '--threshold', '0.04')
    assert done.returncode == 0, done.stderr
    assert '12/12 frames' in done.stderr
    predict = BEVInferencer(load_config(STUDENT, {
        'test_dataloader.dataset.data_root': str(toytown)}), checkpoint, 'cpu')
    for index in (0, 3):
        sample = predict(index)
        token = Path(sample.img_path).stem
        seg = np.load(tmp_path / 'out' / 'maps' / f'{token}.npz')['segmentation']
        np.testing.assert_allclose(seg, sample.pred_bev.seg.numpy(), rtol=0, atol=1e-3)
        drawn = cv2.imread(str(tmp_path / 'out' / 'bev' / f'{token}.png'))[..., ::-1]
        rows, cols = np.nonzero(np.abs(seg[0] - 0.04) > 1e-3)  # row 0 is ahead, and up
        cells = drawn[(rows * 4.8 + 2.4).astype(int), (cols * 4.8 + 2.4).astype(int)]
        plain = (cells == (60, 60, 60)).all(-1) | (cells == (236, 236, 232)).all(-1)
        assert plain.mean() > 0.9  # the others are rings and the car
        assert ((cells[plain][:, 0] == 60) == (seg[0, rows, cols] > 0.04)[plain]).all()
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'video.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert video.read()[1].shape == (480, 1440, 3)


def test_a_video_and_a_run_that_goes_on(exported, toytown, infer, tmp_path):
    path, _ = exported
    files = sorted(images_of(toytown).iterdir())[:3]
    writer = cv2.VideoWriter(str(tmp_path / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5,
                             (320, 160))
    for file in files:
        writer.write(cv2.imread(str(file)))
    writer.release()
    out = tmp_path / 'out'
    assert infer(path, tmp_path / 'in.avi', out).returncode == 0
    made = sorted((out / 'bev').iterdir())
    assert [file.name for file in made] == ['000000.png', '000001.png', '000002.png']
    times = [file.stat().st_mtime_ns for file in made]
    made[1].unlink()
    assert infer(path, tmp_path / 'in.avi', out).returncode == 0
    after = [file.stat().st_mtime_ns for file in made]
    assert after[0] == times[0] and after[2] == times[2] and after[1] > times[1]
    assert {file.name for file in out.iterdir()} == {'bev', 'run.json', 'frames.txt', 'video.mp4'}
    for source, option, message in ((tmp_path / 'in.avi', 0.3, 'thresholds [0.5], now [0.3];'),
                                    (files[0], 0.5, f'now {files[0].resolve()} (')):
        done = infer(path, source, out, '--threshold', option)
        assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
        assert 'out: it holds other results: ' in done.stderr and message in done.stderr


def test_a_changed_image_is_computed_again(exported, toytown, infer, tmp_path):
    path, _ = exported
    files = sorted(images_of(toytown).iterdir())
    source, out = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    cv2.imwrite(str(source / 'a.png'), np.zeros((80, 160, 3), np.uint8))
    assert infer(path, source, out, '--maps').returncode == 2     # another size
    assert not out.exists()
    for name, file in (('a.png', files[0]), ('b.png', files[1])):
        shutil.copy(file, source / name)
    assert infer(path, source, out, '--maps').returncode == 0
    maps = [out / 'maps' / 'a.npz', out / 'maps' / 'b.npz']
    first, kept = np.load(maps[0])['segmentation'], maps[1].stat().st_mtime_ns
    stat = (source / 'a.png').stat()
    (source / 'a.png').write_bytes(files[6].read_bytes())
    os.utime(source / 'a.png', ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert infer(path, source, out).returncode == 0               # leaves the old maps
    assert infer(path, source, out, '--maps').returncode == 0
    again = np.load(maps[0])['segmentation']
    assert infer(path, source, tmp_path / 'fresh', '--maps').returncode == 0
    fresh = np.load(tmp_path / 'fresh' / 'maps' / 'a.npz')['segmentation']
    assert (again == fresh).all() and (again != first).any()
    assert maps[1].stat().st_mtime_ns == kept


def test_files_of_two_exports_are_not_mixed(exported, toytown, infer, tmp_path):
    path, _ = exported
    for suffix in ('', '.json', '.npz'):
        shutil.copy(f'{path}{suffix}', tmp_path / f'm.onnx{suffix}')
    image = sorted(images_of(toytown).iterdir())[0]
    assert infer(tmp_path / 'm.onnx', image, tmp_path / 'out').returncode == 0
    np.savez(tmp_path / 'm.onnx.npz', **dict(np.load(f'{path}.npz'), ground=np.zeros(3, np.uint8)))
    done = infer(tmp_path / 'm.onnx', image, tmp_path / 'new')
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
    assert 'm.onnx.json: it describes another file than m.onnx.npz; keep all' in done.stderr


def test_errors_of_inference_are_one_line(exported, toytown, infer, tmp_path):
    path, _ = exported
    image = sorted(images_of(toytown).iterdir())[0]
    cv2.imwrite(str(tmp_path / 'small.png'), np.zeros((80, 160, 3), np.uint8))
    (tmp_path / 'text.txt').write_text('x')
    for name in ('other.onnx', 'broken.onnx'):
        (tmp_path / name).write_bytes(b'not a model')
    meta = json.loads(Path(f'{path}.json').read_text())
    with np.load(f'{path}.npz') as arrays:
        save_description(tmp_path / 'broken.onnx', {
            key: value for key, value in meta.items() if 'sha256' not in key}, arrays)
    (tmp_path / 'other.onnx.json').write_text(json.dumps(meta))
    for model, source, message in (
            (tmp_path / 'none.onnx', image, 'none.onnx: no such file; export one with'),
            (tmp_path / 'other.onnx', image, 'it describes another file than other.onnx'),
            (tmp_path / 'broken.onnx', image, 'it is no model that runs here'),
            (path, tmp_path / 'none', 'none: no such file or folder'),
            (path, tmp_path / 'text.txt', 'no image (.png .jpg'),
            (path, tmp_path / 'small.png', 'wrong image size 160x80 of CAM_PANO, the model was '
             'exported for 320x160')):
        done = infer(model, source, tmp_path / 'out')
        assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
        assert done.stderr.startswith('error: ') and message in done.stderr


@pytest.mark.parametrize('arguments, code, message', [
    ([STUDENT, 'out.pt'], 2, "OUT out.pt: expected a name that ends with .onnx"),
    ([STUDENT], 2, 'expected CONFIG [CHECKPOINT] OUT, got 1 paths'),
    ([STUDENT, 'o.onnx', '--half', '--int8'], 2, '--half and --int8 exclude each other'),
    ([STUDENT, 'o.xml', '--int8'], 2, '--int8 writes ONNX')])
def test_wrong_arguments(arguments, code, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        start('export_onnx', monkeypatch, *arguments)
    assert end.value.code == code and message in capsys.readouterr().err


def test_a_teacher_is_not_exported(monkeypatch, tmp_path, toytown):
    with pytest.raises(ValueError, match='the model reads LiDAR; export its student'):
        start('export_onnx', monkeypatch, 'configs/kd360/kd360_teacher_r18_500it_toytown.py',
              tmp_path / 'o.onnx', '--cfg-options',
              f'test_dataloader.dataset.data_root={toytown}')


def test_a_calibration_that_is_no_json(monkeypatch, tmp_path):
    (tmp_path / 'rig.json').write_text('{"images": {"CAM_PANO": {}}}')
    with pytest.raises(ValueError, match='rig.json: images.CAM_PANO.height: missing'):
        start('export_onnx', monkeypatch, STUDENT, tmp_path / 'o.onnx', '--info',
              tmp_path / 'rig.json')
    assert not (tmp_path / 'o.onnx').exists()


def test_where_a_calibration_comes_from(tmp_path):
    moved = np.eye(4)
    moved[:3, 3] = 1, 2, 3
    camera = dict(lens='equirect', height=160, width=320, lidar2cam=moved.tolist())
    (tmp_path / 'rig.json').write_text(json.dumps(dict(images=dict(CAM_PANO=camera))))
    data = load_config(STUDENT).test_dataloader.dataset
    data.data_root = str(tmp_path)
    inferencer = SimpleNamespace(dataset_cfg=data)
    read = first_frame(inferencer, str(tmp_path / 'rig.json'))['images']['CAM_PANO']
    np.testing.assert_array_equal(read['lidar2cam'], moved)
    fixed = first_frame(inferencer)['images']['CAM_PANO']  # without data: Dur360BEV's
    assert (fixed['height'], fixed['width']) == (640, 1280)
    with pytest.raises(ValueError, match='none.pkl: no such file; give an info file or a JSON'):
        first_frame(inferencer, str(tmp_path / 'none.pkl'))


@pytest.mark.slow
def test_several_cameras(monkeypatch, tmp_path, toytown_nuscenes, infer):
    config = 'configs/bridgeta/bridgeta_student_r18_500it_toytown.py'
    options = {'test_dataloader.dataset.data_root': str(toytown_nuscenes)}
    torch.manual_seed(3)
    predict = BEVInferencer(load_config(config, options), None, 'cpu')
    save_checkpoint(predict.model.state_dict(), tmp_path / 's.pth')
    start('export_onnx', monkeypatch, config, tmp_path / 's.pth', tmp_path / 's.onnx',
          '--cfg-options', *(f'{key}={value}' for key, value in options.items()))
    sample = predict(0)
    token = Path(sample.cameras[0]['img_path']).stem
    done = infer(tmp_path / 's.onnx', toytown_nuscenes / 'samples', tmp_path / 'out', '--maps')
    assert done.returncode == 0, done.stderr
    seg = np.load(tmp_path / 'out' / 'maps' / f'{token}.npz')['segmentation']
    np.testing.assert_allclose(seg, sample.pred_bev.seg.numpy(), rtol=0, atol=1e-3)
    missing = infer(tmp_path / 's.onnx', images_of(toytown_nuscenes), tmp_path / 'other')
    assert missing.returncode == 2
    done = infer(tmp_path / 's.onnx', toytown_nuscenes / 'maps', tmp_path / 'other')
    assert 'it has no folder CAM_FRONT; the model reads CAM_FRONT, CAM_FRONT_RIGHT' in done.stderr
