"""Results on disk, and maps that workers share."""
import importlib
import os
import pickle
import shutil
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from data_converter import dur360bev
from mmdet3d_plugin.datasets.transforms import caching, loading
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import panorama
from tests.helpers.dur360bev import make_root

ROOT = Path(__file__).resolve().parents[2]
CAMERA = dict(type='LoadDualFisheyePanorama', size=(16, 32))
SCAN, IMAGE = dict(type='LoadOusterScan'), dict(type='BuildLiDARImage', size=(12, 64))
TARGET = [dict(type='RasterizeBEV', grid=dict(resolution=1.0)), dict(type='PackBEVInputs')]


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    root = make_root(tmp_path_factory.mktemp('town') / 'data')
    dur360bev.convert(str(root))
    return root


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / 'data')


def build(root, pipeline):
    return DATASETS.build(dict(type='Dur360BEVDataset', data_root=str(root), pipeline=pipeline,
                               ann_file='dur360bev_infos_train.pkl'))


def cached(folder, *transforms, **kwargs):
    return dict(type='Cached', transforms=list(transforms), cache_dir=str(folder), **kwargs)


def entries(folder):
    return sorted(p for p in Path(folder).rglob('*') if p.is_file())


@pytest.fixture
def calls(monkeypatch):
    """How often each loader opened a file."""
    count = Counter()

    def counted(name):
        read = getattr(loading, name)

        def call(*args):
            count[name] += 1
            return read(*args)

        return call

    for name in ('load_image', 'read_points'):
        monkeypatch.setattr(loading, name, counted(name))
    return count


def test_results_are_those_of_the_transforms_to_the_bit(root, tmp_path, calls):
    folder = tmp_path / 'cache'
    plain = build(root, [CAMERA, SCAN, IMAGE, *TARGET])
    pipeline = [cached(folder, CAMERA),
                cached(folder, SCAN, IMAGE, keys=('points', 'lidar_img', 'lidar_camera')), *TARGET]
    expected = [plain[n] for n in range(4)]
    for _ in range(2):  # made, then read by another process's transforms
        dataset = build(root, pipeline)
        for n, want in enumerate(expected):
            got = dataset[n]
            for key, value in want['inputs'].items():
                assert torch.equal(got['inputs'][key], value)
                assert got['inputs'][key].dtype == value.dtype
            for key in ('cameras', 'lidar_camera'):
                a, b = (sample['data_samples'].metainfo[key] for sample in (got, want))
                np.testing.assert_equal(a, b)
    assert calls == dict(load_image=8, read_points=8)  # four frames: plain, and made once
    assert len(entries(folder)) == 8 and all(p.suffix == '.pkl' for p in entries(folder))


def test_results_may_be_changed_in_place(root, tmp_path):
    dataset = build(root, [cached(tmp_path / 'cache', CAMERA)])
    first = dataset[0]['img'][0].copy()
    for _ in range(2):
        frame = dataset[0]
        np.testing.assert_array_equal(frame['img'][0], first)
        frame['img'][0][:] = 0


def test_keys_not_kept_are_dropped(root, tmp_path):
    for _ in range(2):
        frame = build(root, [cached(tmp_path / 'cache', SCAN, IMAGE, keys=('lidar_img', ))])[0]
        assert frame['lidar_img'].shape == (3, 12, 64)
        assert not {'scan', 'points', 'lidar_camera'} & set(frame)


def replace_image(root, folder):
    path = root / 'image' / 'data' / '1000000000.png'
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    os.utime(path, (1, 1))


def cut_entry(root, folder):
    path, = entries(folder)
    path.write_bytes(path.read_bytes()[:-1])


def flip_bit(root, folder):
    path, = entries(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty_entry(root, folder):
    path, = entries(folder)
    path.write_bytes(b'')


@pytest.mark.parametrize('spoil', [replace_image, cut_entry, flip_bit, empty_entry])
def test_stale_and_damaged_entries_are_made_anew(root, tmp_path, calls, spoil):
    folder = tmp_path / 'cache'
    dataset = build(root, [cached(folder, CAMERA)])
    dataset[0]
    spoil(root, folder)
    expected = build(root, [CAMERA])[0]['img'][0]
    calls.clear()
    for _ in range(2):
        np.testing.assert_array_equal(dataset[0]['img'][0], expected)
    assert calls['load_image'] == 1 and len(entries(folder)) == 1  # replaced


class Evil:

    def __reduce__(self):
        return os.mkdir, ('evil_was_here', )


def test_entries_run_no_code(tmp_path, monkeypatch):
    """A forged entry with the right sum is as good as none; none is written that is not plain."""
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps((['stamp'], dict(img=Evil()), {}))
    path = tmp_path / 'ab' / 'x.pkl'
    path.parent.mkdir()
    path.write_bytes(zlib.crc32(content).to_bytes(4, 'little') + content)
    assert caching.read_entry(path, ['stamp']) is None
    with pytest.raises(UserError, match='of img, one is no plain value, NumPy array or LiDARPoint'):
        caching.write_entry(path, ['stamp'], dict(img=Evil()))
    assert not (tmp_path / 'evil_was_here').exists()
    caching.write_entry(path, ['stamp'], dict(img=[np.eye(2)]))
    assert caching.read_entry(path, ['stamp'])['img'][0].tolist() == [[1, 0], [0, 1]]


def test_a_change_of_the_code_makes_entries_anew(root, tmp_path, calls, monkeypatch):
    build(root, [cached(tmp_path / 'cache', CAMERA)])[0]
    monkeypatch.setattr(caching, 'code_checksum', lambda *classes: 'another')
    build(root, [cached(tmp_path / 'cache', CAMERA)])[0]
    assert calls['load_image'] == 2 and len(entries(tmp_path / 'cache')) == 1


def test_the_code_is_that_of_every_wrapped_class(tmp_path, monkeypatch):
    """Also of a transform of another package, and of what it is derived from."""
    module = tmp_path / 'someones_loader.py'
    module.write_text('from mmdet3d_plugin.datasets.transforms.loading import LoadPointCloud\n\n\n'
                      'class Mine(LoadPointCloud):\n    """One."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module('someones_loader').Mine
    first = caching.code_checksum(mine)
    assert first != caching.code_checksum(loading.LoadPointCloud) and first == \
        caching.code_checksum(mine)
    module.write_text(module.read_text().replace('One', 'Two'))
    assert caching.code_checksum(mine) != first


@pytest.mark.parametrize('change', [dict(size=(8, 16)), dict(sampling='release'),
                                    dict(concentric=True)])
def test_other_settings_have_entries_of_their_own(root, tmp_path, change):
    folder = tmp_path / 'cache'
    first = build(root, [cached(folder, CAMERA)])[0]
    other = build(root, [cached(folder, dict(CAMERA, **change))])[0]
    assert len(entries(folder)) == 2
    expected = build(root, [dict(CAMERA, **change)])[0]
    np.testing.assert_equal(other['img'] + other['cameras'], expected['img'] + expected['cameras'])
    np.testing.assert_array_equal(build(root, [cached(folder, CAMERA)])[0]['img'][0],
                                  first['img'][0])


def test_another_calibration_has_an_entry_of_its_own(root, tmp_path):
    loader = TRANSFORMS.build(cached(tmp_path / 'cache', CAMERA))
    frame = build(root, [])[0]
    moved = {**frame['images']['CAM_PANO'], 'lidar2cam': np.diag([-1., -1, 1, 1]).tolist()}
    assert loader(frame)['cameras'][0]['lidar2cam'][0, 0] == 1
    assert loader({**frame, 'images': dict(CAM_PANO=moved)})['cameras'][0]['lidar2cam'][0, 0] == -1


def test_workers_write_one_cache(root, tmp_path):
    folder = tmp_path / 'cache'
    dataset = build(root, [cached(folder, CAMERA), TARGET[1]])
    loader = DataLoader(dataset, 1, sampler=[0, 1, 0, 1] * 4, num_workers=2,
                        collate_fn=pseudo_collate)
    shapes = {tuple(batch['inputs']['img'][0].shape) for batch in loader}
    assert shapes == {(1, 3, 16, 32)}
    assert len(entries(folder)) == 2  # and no temporary files


@pytest.mark.parametrize('make, message', [
    (lambda d: cached(d, CAMERA, dict(type='RandomYaw')), 'RandomYaw is no function of the files'),
    (lambda d: cached(d, SCAN, dict(IMAGE, stateful=True)), 'BuildLiDARImage is no function'),
    (lambda d: cached(d, dict(type='LoadMultiViewImages', num_past=1, seconds=[(0.5, 1)])),
     'LoadMultiViewImages is no function'),
    (lambda d: cached(d, IMAGE), "BuildLiDARImage needs 'scan'; wrap the transform that makes it"),
    (lambda d: cached(d, CAMERA, keys=('imgs', )), "do not make 'imgs'; did you mean 'img'"),
    (lambda d: cached(d, dict(CAMERA, sized=1)), r'Cached.transforms\[0\]'),
    (lambda d: cached(Path(__file__) / 'x', CAMERA), 'choose a folder that can be written'),
])
def test_what_cannot_be_cached_is_refused(tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        TRANSFORMS.build(make(tmp_path))


def test_the_documented_config_trains_on_toytown(toytown, tmp_path):
    """The snippet of docs/datasets.md, on a small config."""
    text = (ROOT / 'docs' / 'datasets.md').read_text()
    snippet = next(part for part in text.split('```') if "type='Cached'" in part)
    lines = snippet.replace('./kd360_teacher_r101-effb0_12k_dur360bev.py',
                            str(ROOT / 'configs/kd360/kd360_teacher_r18_500it_toytown.py'))
    lines = lines.replace('work_dirs/cache', str(tmp_path / 'cache')).removeprefix('python\n')
    (tmp_path / 'config.py').write_text(lines)
    loader = Config.fromfile(tmp_path / 'config.py').train_dataloader
    dataset = DATASETS.build(dict(loader.dataset, data_root=str(toytown)))
    packed = dataset[0]
    assert set(packed['inputs']) == {'img', 'lidar_img', 'points'}
    assert len(entries(tmp_path / 'cache')) == 2
    assert packed['data_samples'].metainfo['bev_aug'].shape == (4, 4)


def test_a_full_disk_is_one_line(root, tmp_path, monkeypatch):
    dataset = build(root, [cached(tmp_path / 'cache', CAMERA)])

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(caching.os, 'replace', full)
    with pytest.raises(UserError, match='cannot write the cache: No space left on device; make'):
        dataset[0]
    assert not entries(tmp_path / 'cache')


# Maps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('wrap', [False, True])
def test_maps_are_made_once_for_all_workers_and_epochs(root, tmp_path, monkeypatch, wrap):
    log = tmp_path / 'made.txt'
    make = panorama.fixed_point_maps

    def logged(rows, cols, nearest=False):
        with open(log, 'a') as file:
            file.write(f'{os.getpid()} {rows.shape}\n')
        return make(rows, cols, nearest)

    monkeypatch.setattr(panorama, 'fixed_point_maps', logged)
    panorama.dual_fisheye_maps.cache_clear()
    camera = dict(CAMERA, size=(24, 48))
    camera = cached(tmp_path / 'cache', camera) if wrap else camera
    datasets = [build(root, [camera, TARGET[1]]) for _ in range(2)]  # to train and to validate
    loaders = [DataLoader(d, 1, num_workers=2, persistent_workers=True, collate_fn=pseudo_collate)
               for d in datasets]
    for _ in range(2):
        for loader in loaders:
            assert len(list(loader)) == 4
    made = [line for line in log.read_text().splitlines() if line.endswith('(24, 48)')]
    assert made == [f'{os.getpid()} (24, 48)']  # by this process


def test_maps_of_many_calibrations_do_not_pile_up():
    for side in range(10, 30):
        panorama.dual_fisheye_maps(8, 16, side)
    assert panorama.dual_fisheye_maps.cache_info().currsize == 4
    camera = dict(lens='pinhole', height=8, width=8, lidar2cam=np.eye(4))
    stitch = TRANSFORMS.build(dict(type='LoadStitchedPanorama', size=(8, 16)))
    for focal in range(10, 30):
        matrix = [[focal, 0, 3.5], [0, focal, 3.5], [0, 0, 1]]
        stitch.prepare(dict(images=dict(A=dict(camera, cam2img=np.array(matrix)))))
    assert loading._stitch_maps.cache_info().currsize == 4
