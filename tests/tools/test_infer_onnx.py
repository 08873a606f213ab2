"""Images before the network: without torch the same as in the pipeline, bit for bit."""
import contextlib
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmdet3d_plugin.datasets.transforms.views import ImageAug3D
from mmdet3d_plugin.deployment import packaging
from mmdet3d_plugin.deployment.preprocessing import recipe_of
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import panorama
from tests.test_fuzz_files import META

ROOT = Path(__file__).resolve().parents[2]
TURNS = ([[0, -1, 0], [0, 0, -1], [1, 0, 0]], [[-1, 0, 0], [0, 0, -1], [0, -1, 0]])


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('infer', ROOT / 'tools' / 'infer_onnx.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frame(size=(60, 100)):
    """Two pinholes that overlap, ahead and to the left."""
    images = {}
    for n, turn in enumerate(TURNS):
        lidar2cam = np.eye(4)
        lidar2cam[:3, :3] = turn
        images[f'CAM_{n}'] = dict(
            lens='pinhole', height=size[0], width=size[1], img_path='none', lidar2cam=lidar2cam,
            cam2img=[[30.0, 0, size[1] / 2], [0, 30, size[0] / 2], [0, 0, 1]])
    return dict(images=images)


def noise(size=(60, 100), count=2):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def prepared(tool, recipe, arrays, size, images):
    exported = SimpleNamespace(arrays=arrays, size=size, meta=dict(
        preprocessing=recipe, inputs=dict(images=dict(shape=[1, len(recipe['images'])]))))
    return tool.prepare(exported, images, 'frame')


@pytest.mark.parametrize('feather', [0, 12])
def test_stitched_panorama(tool, feather):
    step = dict(type='LoadStitchedPanorama', size=(32, 128), feather_px=feather)
    cameras, recipe, arrays = recipe_of([step], frame())
    views = [dict(view, name=name) for name, view in frame()['images'].items()]
    fov = np.deg2rad(22.5)
    layers, _ = panorama.stitch_maps(views, 32, 128, fov, -fov, feather_px=feather)
    assert recipe['layers'] == len(layers) == (2 if feather else 1)
    out, = prepared(tool, recipe, arrays, (32, 128), noise())
    assert (out == panorama.stitch(noise(), layers)).all() and out.any()
    assert cameras[0]['lens'] == 'equirect'


@pytest.mark.parametrize('release', [False, True])
def test_resized_and_cut_images(tool, release):
    step = dict(type='ImageAug3D', size=(32, 70), resize=0.9, random=False, release=release,
                relative=False)
    cameras, recipe, arrays = recipe_of([dict(type='LoadMultiViewImages'), step], frame())
    views = ImageAug3D(**{k: v for k, v in step.items() if k != 'type'})
    expected = views.transform(dict(img=noise(), cameras=[
        dict(view, name=name) for name, view in frame()['images'].items()]))
    out = prepared(tool, recipe, arrays, (32, 70), noise())
    assert all((a == b).all() for a, b in zip(out, expected['img']))
    assert recipe['corner'] == {'CAM_0': (10, 22), 'CAM_1': (10, 22)}
    for camera, other in zip(cameras, expected['cameras']):
        np.testing.assert_array_equal(camera['img_aug'], other['img_aug'])


def test_the_circles_of_a_dual_fisheye(tool):
    image = dict(lidar2cam=np.eye(4), height=64, width=128)
    step = dict(type='LoadDualFisheye', rows=(0.25, 0.875))
    cameras, recipe, arrays = recipe_of([step], dict(images=dict(CAM_PANO=image)))
    assert [camera['lens'] for camera in cameras] == 2 * ['equidistant']
    assert recipe['rows'] == (16, 56) and cameras[0]['height'] == 40
    image, = noise((64, 128), 1)
    out = prepared(tool, recipe, arrays, (40, 64), [image])
    expected = [view[16:56] for view in panorama.dual_fisheye_views(image)]
    assert all((a == b).all() for a, b in zip(out, expected))


def test_images_as_they_are(tool):
    cameras, recipe, _ = recipe_of([dict(type='LoadMultiViewImages', cameras=('CAM_1', ))], frame())
    assert [camera['name'] for camera in cameras] == list(recipe['images']) == ['CAM_1']
    out, = prepared(tool, recipe, {}, (60, 100), noise(count=1))
    assert (out == noise(count=1)[0]).all()


def test_pipelines_that_are_not_known():
    with pytest.raises(UserError, match='loads images by ; expected one of LoadDualFisheye'):
        recipe_of([dict(type='PackBEVInputs')], frame())
    random = [dict(type='LoadMultiViewImages'), dict(type='ImageAug3D')]
    with pytest.raises(UserError, match='draws at random in the test pipeline'):
        recipe_of(random, frame())


def test_cells_on_a_drawing(tool):
    """Above the threshold coloured, later classes on top; the background's marks stay."""
    background = np.full((8, 8, 3), 9, np.uint8)
    background[4, 4] = 1
    arrays = dict(cells_top_down=np.stack(np.indices((4, 4))[:, ::-1]), background=background,
                  ground=np.full(3, 9, np.uint8),
                  colours=np.array([[50, 0, 0], [0, 50, 0]], np.uint8))
    seg = np.zeros((2, 4, 4))
    seg[0, 0], seg[1, 0, 0] = 0.6, 0.9
    drawn = tool.draw_map(seg, arrays, [0.5, 0.8])
    assert (drawn[6:, :2] == (0, 50, 0)).all() and (drawn[6:, 2:] == (50, 0, 0)).all()
    assert (drawn[4, 4] == 1).all() and (drawn[:4] == 9).all()


def test_another_calibration(tool, tmp_path):
    file = tmp_path / 'rig.json'
    model = SimpleNamespace(path=Path('m.onnx'), feed=dict(
        lidar2cam=np.zeros((1, 4, 4), np.float32), lens=np.zeros((1, 2), np.float32)))
    file.write_text(json.dumps(dict(lidar2cam=np.eye(4)[None].tolist())))
    tool.calibrate(model, file)
    assert (model.feed['lidar2cam'] == np.eye(4)).all() and not model.feed['lens'].any()
    for text, message in (
            ('{"lens": [1, 2]}', r'lens of shape \(2,\); expected lidar2cam \(1, 4, 4\), lens'),
            ('{"lense": [[1, 2]]}', 'lense of shape'), ('[1]', 'expected a JSON with')):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            tool.calibrate(model, file)
    with pytest.raises(ValueError, match='that of m.onnx is a constant'):
        tool.calibrate(SimpleNamespace(path=Path('m.onnx'), feed={}), file)


def test_a_description_of_another_format_is_refused(tool, tmp_path):
    assert tool.FORMAT == packaging.FORMAT == 3  # stands twice: the tool runs without the package
    keys = ('inputs', 'outputs', 'preprocessing', 'calibration', 'thresholds', 'camera_rows',
            'sha256', 'arrays_sha256')
    (tmp_path / 'm.onnx.json').write_text(json.dumps(dict.fromkeys(keys, {}) | dict(format=1)))
    with pytest.raises(tool.InputError, match='of format 1, this program reads 3; export'):
        tool._read_meta(tmp_path / 'm.onnx')


@pytest.mark.parametrize('suffix', ['', '.npz', '.json'])
def test_damaged_files_of_an_export_are_refused(suffix, tool, tmp_path):
    """A flipped bit anywhere in the network, its arrays or its description."""
    path = tmp_path / 'm.onnx'
    path.write_bytes(b'a network')
    packaging.save_description(path, dict(META, thresholds=[1 / 3]), dict(ground=np.arange(9)))
    meta = tool._read_meta(path)
    assert meta['thresholds'] == [1 / 3] and meta['calibration'] == META['calibration']
    file = tmp_path / f'm.onnx{suffix}'
    whole, refused = file.read_bytes(), 0
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        with contextlib.suppress(tool.InputError):
            assert tool._read_meta(path) == meta  # a space in place of the JSON's '!' or the like
            continue
        refused += 1
    assert refused > 0.9 * len(whole)
    file.write_bytes(whole)
    assert tool._read_meta(path) == meta


def test_images_of_six_cameras_stand_as_the_description_says(tool):
    images = [np.full((20, 30, 3), 40 * n, np.uint8) for n in range(6)]
    out = tool.beside(images, np.full((90, 90, 3), 255, np.uint8), [[2, 0, 1], [4, 3, 5]], 90)
    assert out.shape == (90, 180, 3)
    assert (out[30, [15, 45, 75], 0] == [80, 0, 40]).all()
    assert (out[50, [15, 45, 75], 0] == [160, 120, 200]).all()
    out = tool.beside(images[:5], np.zeros((40, 90, 3), np.uint8), [[0, 1, 2], [3, 4]], 90)
    assert (out[30, [15, 45, 75], 0] == [120, 160, 0]).all()  # a row that is not full


def test_a_folder_of_results_is_for_one_origin(tool, tmp_path):
    results = tool.Results(tmp_path / 'out', dict(input='/a', thresholds=[0.5]))
    assert not (tmp_path / 'out').exists()              # claimed when the first result is there
    results.begin()
    results.add('bev/a b.png', 'digest1', b'one')
    with open(tmp_path / 'out' / 'frames.txt', 'a') as notes:
        notes.write('\ndig')                            # killed
    again = tool.Results(tmp_path / 'out', dict(input='/a', thresholds=[0.5]))
    assert again.has('bev/a b.png', 'digest1') and not again.has('bev/a b.png', 'digest2')
    again.add('bev/a b.png', 'digest2', b'two')
    again.add('bev/c.png', 'digest3', b'three')
    last = tool.Results(tmp_path / 'out', dict(input='/a', thresholds=[0.5]))
    assert last.has('bev/a b.png', 'digest2') and not last.has('bev/a b.png', 'digest1')
    (tmp_path / 'out' / 'bev' / 'c.png').unlink()
    assert not last.has('bev/c.png', 'digest3')
    with pytest.raises(tool.InputError, match=r'out: it holds other results: input /a, now /b; '
                       r'thresholds \[0.5\], now \[0.4\]; choose another folder, or delete it'):
        tool.Results(tmp_path / 'out', dict(input='/b', thresholds=[0.4]))
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'video.mp4').touch()
    with pytest.raises(tool.InputError, match='mine: it has video.mp4 but no run.json'):
        tool.Results(tmp_path / 'mine', dict(input='/a'))


def test_images_of_one_stem_have_results_of_their_own(tool, tmp_path):
    for name in ('a.png', 'a.jpg', 'b.png'):
        (tmp_path / name).touch()
    assert [name for name, _ in tool.frames_of(tmp_path, ['CAM'])[1]] == ['a.jpg', 'a.png', 'b']
