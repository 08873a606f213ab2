"""Models from Python: the student, alone and out of its distillation."""
import pickle
import re
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from mmdet3d_plugin import apis
from mmdet3d_plugin.apis import BEVInferencer, init_model
from mmdet3d_plugin.checkpoints import save_checkpoint
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.errors import UserError

STUDENT = 'configs/kd360/kd360_student_r18_500it_toytown.py'
TEACHER = 'configs/kd360/kd360_teacher_r18_500it_toytown.py'
DISTILL = 'configs/kd360/kd360_distill_r18_500it_toytown.py'


def config_on(root, path):
    return load_config(path, {'test_dataloader.dataset.data_root': str(root)})


@pytest.fixture(scope='module')
def distilled(tmp_path_factory):
    """A checkpoint as the Runner writes it for a distiller, of random weights."""
    cfg = load_config(DISTILL)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp('checkpoint') / 'iter_1.pth'
    save_checkpoint(dict(state_dict=model.state_dict(), optimizer={}, message_hub={},
                         meta=dict(cfg=cfg.pretty_text, iter=1)), path)
    return path


def test_the_ways_to_name_a_frame_agree(distilled, toytown):
    predict = BEVInferencer(config_on(toytown, STUDENT), distilled, device='cpu')
    sample = predict(1)
    assert sample.pred_bev.seg.shape == (1, 100, 100)
    assert 0 <= sample.pred_bev.seg.min() < sample.pred_bev.seg.max() <= 1
    with open(toytown / 'dur360bev_infos_val.pkl', 'rb') as file:
        info = pickle.load(file)['data_list'][1]
    camera = info['images']['CAM_PANO']
    path = toytown / camera['img_path']
    array = cv2.imread(str(path))
    arrays = dict(images=dict(CAM_PANO={**{k: v for k, v in camera.items() if k != 'img_path'},
                                        'img': array}))
    others = predict([info, dict(img=path, lidar2cam=camera['lidar2cam']), arrays,
                      dict(img=array, lidar2cam=np.array(camera['lidar2cam'])), 1])
    for other in others:
        torch.testing.assert_close(other.pred_bev.seg, sample.pred_bev.seg, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(predict(0).pred_bev.seg, sample.pred_bev.seg)


def test_the_teacher_reads_scans_by_path(toytown, tmp_path):
    cfg = config_on(toytown, TEACHER)
    save_checkpoint(init_model(cfg).state_dict(), tmp_path / 'teacher.pth')
    predict = BEVInferencer(cfg, tmp_path / 'teacher.pth', device='cpu')
    sample = predict(0)
    files = dict(img=sample.img_path, points=sample.lidar_path,
                 lidar2cam=sample.cameras[0]['lidar2cam'])
    torch.testing.assert_close(predict(files).pred_bev.seg, sample.pred_bev.seg,
                               rtol=1e-5, atol=1e-6)


def test_published_student_fits_its_own_config_strictly(distilled, tmp_path, run_command):
    done = run_command('tools/publish_model.py', distilled, tmp_path / 'student.pth')
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob('student-*.pth')
    published = torch.load(path, weights_only=True)
    whole = torch.load(distilled, weights_only=True)['state_dict']
    for cfg in (load_config(STUDENT), Config.fromstring(published['meta']['cfg'], '.py')):
        model = init_model(cfg, device='cpu')
        assert type(model).__name__ == 'BEVModel'
        model.load_state_dict(published['state_dict'], strict=True)
        assert all(torch.equal(value, whole[f'student.{key}'])
                   for key, value in model.state_dict().items())
    assert not any(key.startswith(('student.', 'assistant.', 'teacher.', 'terms.'))
                   for key in published['state_dict'])


def test_errors(distilled, toytown, tmp_path):
    with pytest.raises(UserError, match=r'not of this model \(BEVModel\)'):
        init_model(TEACHER, distilled)
    predict = BEVInferencer(config_on(toytown, STUDENT), distilled, device='cpu')
    with pytest.raises(UserError, match='frame 4: the test data has frames 0 to 3'):
        predict(4)
    with pytest.raises(UserError, match='missing or unreadable image'):
        predict(dict(img=tmp_path / 'gone.png'))
    with pytest.raises(UserError, match="'lidar2cm' is none; did you mean 'lidar2cam'"):
        predict(dict(img='x.png', lidar2cm=1))


@pytest.fixture(scope='module')
def predict(distilled, toytown):
    return BEVInferencer(config_on(toytown, STUDENT), distilled, device='cpu')


def test_a_path_and_an_array_have_the_default_calibration(predict, toytown):
    path = sorted((toytown / 'image' / 'data').glob('*.png'))[0]
    by_path, by_text, by_array, by_files = predict(
        [path, str(path), cv2.imread(str(path)), dict(img=path, lidar2cam=np.eye(4))])
    for other in (by_text, by_array, by_files):
        assert torch.equal(other.pred_bev.seg, by_path.pred_bev.seg)
    assert by_path.metainfo['token'] == path.stem


def test_a_panorama_takes_the_place_of_the_one_that_the_loader_makes(predict, toytown, tmp_path):
    """The config's panorama, 30 to -60 degrees, is the rows 85 to 213 of a sphere of 256 rows."""
    from mmdet3d_plugin.geometry import panorama
    path = sorted((toytown / 'image' / 'data').glob('*.png'))[0]
    image = cv2.imread(str(path))
    sphere = panorama.remap(image, panorama.dual_fisheye_maps(256, 512, image.shape[1] // 2))
    cv2.imwrite(str(tmp_path / 'sphere.png'), sphere)
    seg = predict(dict(img=tmp_path / 'sphere.png', lens='equirect')).pred_bev.seg
    expected = predict(path).pred_bev.seg
    assert seg.shape == expected.shape and (seg - expected).abs().mean() < 0.01
    with pytest.raises(UserError, match='sphere.png: expected a dual-fisheye image, got a pano'):
        predict(tmp_path / 'sphere.png')


def test_predictions_are_drawn_and_saved(predict, tmp_path):
    samples = predict([0, 0, 1], out_dir=tmp_path / 'out')
    tokens = [sample.metainfo['token'] for sample in samples]
    names = [tokens[0], f'{tokens[0]}_1', tokens[2]]
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(
        f'{name}{end}' for name in names for end in ('.png', '.npz'))
    drawing = predict.draw(samples[0])
    assert drawing.ndim == 3 and drawing.shape[2] == 3 and drawing.dtype == np.uint8
    with np.load(tmp_path / 'out' / f'{names[2]}.npz') as maps:
        np.testing.assert_array_equal(maps['seg'], samples[2].pred_bev.seg.numpy())
    saved = cv2.imread(str(tmp_path / 'out' / f'{names[0]}.png'))
    assert saved.shape[0] > drawing.shape[0]  # with the panorama


def test_a_detector_gives_boxes(toytown_nuscenes, tmp_path):
    cfg = config_on(toytown_nuscenes,
                    'configs/detection/centerpoint_teacher_pillar_500it_toytown.py')
    cfg.model.head.test_cfg = dict(score_threshold=0.0)
    torch.manual_seed(0)
    predict = BEVInferencer(cfg, None, device='cpu')
    sample = predict(0, out_dir=tmp_path)
    found = sample.pred_instances_3d
    assert len(found.scores_3d) == len(found.labels_3d) > 0 and 'pred_bev' not in sample
    token = sample.metainfo['token']
    with np.load(tmp_path / f'{token}.npz') as arrays:
        assert sorted(arrays) == ['bboxes_3d', 'classes', 'labels_3d', 'scores_3d']
        np.testing.assert_array_equal(arrays['bboxes_3d'], found.bboxes_3d.tensor.numpy())
        assert arrays['classes'].tolist() == list(sample.metainfo['classes'])
    saved = cv2.imread(str(tmp_path / f'{token}.png'))
    few, many = (predict.draw(sample, score_threshold=limit) for limit in (1.1, 0.0))
    assert saved.shape == many.shape == few.shape and (few != many).any()


CAMERA = dict(height=160, width=320, lens='equirect', source_lens='dual_fisheye',
              lidar2cam=np.eye(4))


@pytest.mark.parametrize('frame, message', [
    (1.5, 'a frame is an index, a path, an image or a dict, got float 1.5'),
    (True, 'a frame is an index, a path, an image or a dict, got bool True'),
    ([[0]], 'got list'),
    ([], 'no frames: the list is empty'),
    (dict(), 'neither img nor points, only'),
    (dict(image='x.png'), "'image' is none; did you mean"),
    (dict(img=3), 'img: expected a path, got int'),
    (dict(img='x.png', lens='equirec'), "lens 'equirec' is none; did you mean 'equirect'"),
    (np.zeros((160, 320), np.uint8), r'img: expected an image, .* got uint8 of shape \(160, 320\)'),
    (np.zeros((160, 320, 3)), 'got float64 of shape'),
    (dict(images={}), 'frame: images: no camera'),
    (dict(images=dict(CAM_PANO={k: v for k, v in CAMERA.items() if k != 'height'})),
     'frame: images.CAM_PANO.height: missing'),
    (dict(images=dict(CAM_PANO=dict(CAMERA, lens='dual'))), 'CAM_PANO.lens: expected one of'),
    (dict(images=dict(CAM_PANO=dict(CAMERA, lidar2cm=1))), "did you mean 'lidar2cam'"),
    (dict(images=dict(CAM_PANO=dict(CAMERA, lidar2cam=np.zeros((4, 4))))),
     'lidar2cam: expected a rigid 4x4 transform'),
    (dict(images=dict(CAM_PANO=CAMERA)), 'images.CAM_PANO: neither img_path nor img'),
    (dict(images=dict(CAM_PANO=dict(CAMERA, img=np.zeros((8, 16, 3), np.uint8)))),
     'images.CAM_PANO: the image is 16x8, its camera 320x160'),
    (dict(images=dict(CAM_PANO={**CAMERA, 'img_path': 'x.png', 'lens': 'pinhole', 'cam2img': [
        [-1, 0, 0], [0, 1, 0], [0, 0, 1]]})), 'cam2img: expected .* fx, fy > 0'),
    (dict(img=np.zeros((160, 320, 3), np.uint8), lidar2cam=np.diag([1, 1, -1, 1])),
     'frame: images.CAM_PANO.lidar2cam: expected a rigid')])
def test_frames_that_are_none(predict, frame, message):
    with pytest.raises(UserError, match=message):
        predict(frame)


def test_the_near_name_of_a_file(predict, toytown):
    path = sorted((toytown / 'image' / 'data').glob('*.png'))[0]
    with pytest.raises(UserError, match='missing or unreadable image; did you mean'):
        predict(path.with_name(path.name[:-5] + 'x.png'))
    with pytest.raises(UserError, match='a folder; give a list of its files'):
        predict(path.parent)


def test_one_image_does_not_feed_six_cameras(toytown_nuscenes):
    config = config_on(toytown_nuscenes, 'configs/bridgeta/bridgeta_student_r18_500it_toytown.py')
    with pytest.raises(UserError, match=r'reads LoadMultiViewImages; give dict\(images=\{NAME'):
        BEVInferencer(config, None, device='cpu')(np.zeros((108, 192, 3), np.uint8))


def examples():
    """Name and code of the Python examples with a ``BEVInferencer``."""
    block = apis.__doc__.split('\n\n', 1)[1]
    yield 'docstring', textwrap.dedent(block)
    for document in (Path('README.md'), *sorted(Path('docs').glob('*.md'))):
        for n, code in enumerate(re.findall(r'```python\n(.*?)```', document.read_text(), re.S)):
            if 'BEVInferencer' in code:
                yield f'{document}-{n}', code


@pytest.mark.parametrize('code', [pytest.param(code, id=name) for name, code in examples()])
def test_examples(code, distilled, toytown, tmp_path):
    """They run as they stand but for the names of files."""
    image = sorted((toytown / 'image' / 'data').glob('*.png'))[0]
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{Path(STUDENT).absolute()}']\n"
                      f"test_dataloader = dict(dataset=dict(data_root='{toytown}/'))\n")
    for name, real in ((r'configs/[\w/.]*', config), ('student.pth', distilled),
                       ('image.png', image), ('results', tmp_path / 'results')):
        code = re.sub(f"'{name}'", f"'{real}'", code)
    names = dict(cv2=cv2)
    exec(code, names)  # of this repository
    assert names['sample'].pred_bev.seg.shape == (1, 100, 100)
    assert len(list((tmp_path / 'results').glob('*.png'))) == 2
