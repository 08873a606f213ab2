import json
import sys

import cv2
import numpy as np
import pytest

from data_converter import dur360bev
from mmdet3d_plugin.apis import init_model
from mmdet3d_plugin.checkpoints import save_checkpoint
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.visualization import frames
from tests.helpers.dur360bev import make_root
from tools import browse_dataset, visualize

STUDENT, TEACHER = (f'configs/kd360/kd360_{role}_r18_500it_toytown.py'
                    for role in ('student', 'teacher'))


@pytest.fixture(scope='module')
def town(tmp_path_factory):
    """A data root and checkpoints of an untrained student and teacher."""
    root = make_root(tmp_path_factory.mktemp('town') / 'data')
    dur360bev.convert(str(root))
    for name, config in (('student', STUDENT), ('teacher', TEACHER)):
        model = init_model(config)
        save_checkpoint(dict(state_dict=model.state_dict(), meta={}), root / f'{name}.pth')
    return root


def run(monkeypatch, tool, root, *words):
    options = [f'{loader}_dataloader.dataset.data_root={root}'
               for loader in ('train', 'val', 'test')]
    monkeypatch.setattr(sys, 'argv', ['tool', *map(str, words), '--cfg-options', *options])
    tool.main()


def test_student_and_teacher_side_by_side(town, tmp_path, monkeypatch):
    run(monkeypatch, visualize, town, STUDENT, town / 'student.pth', TEACHER, town / 'teacher.pth',
        '--out-dir', tmp_path, '--indices', 1, '--width', 900)
    path, = tmp_path.iterdir()
    assert path.name == '000001_extended_1000000005.png'
    both = cv2.imread(str(path)).shape
    run(monkeypatch, visualize, town, STUDENT, town / 'student.pth', '--out-dir', tmp_path / 'one',
        '--indices', 1, '--width', 900)
    alone = cv2.imread(str(next((tmp_path / 'one').iterdir()))).shape
    assert both[1] == alone[1] == 900
    # three strips of LiDAR channels, less height for three maps in a row than for two
    assert both[0] != alone[0]


def test_instances_make_the_image_longer(town, tmp_path, monkeypatch):
    sizes = []
    for flag in ([], ['--instances']):
        run(monkeypatch, visualize, town, STUDENT, town / 'student.pth', '--out-dir', tmp_path,
            '--indices', 1, '--width', 600, *flag)
        sizes.append(cv2.imread(str(next(tmp_path.iterdir()))).shape)
    assert sizes[1][0] > sizes[0][0] and sizes[1][1] == sizes[0][1] == 600


def test_detectors_beside_each_other_and_in_a_video(toytown_nuscenes, tmp_path, monkeypatch):
    teacher, student = (f'configs/detection/{name}_500it_toytown.py' for name in
                        ('centerpoint_teacher_pillar', 'bevdepth4d_student_r18'))
    pairs = []
    for config in (teacher, student):
        save_checkpoint(dict(state_dict=init_model(config).state_dict(), meta={}),
                        tmp_path / f'{len(pairs)}.pth')
        pairs += [config, tmp_path / f'{len(pairs)}.pth']
    run(monkeypatch, visualize, toytown_nuscenes, *pairs, '--out-dir', tmp_path / 'out', '--video',
        '--indices', 1, 2, '--width', 500, '--fps', 2)
    files = sorted(p.name for p in (tmp_path / 'out').iterdir())
    assert [name[:7] for name in files] == ['000001_', '000002_', 'video.m']
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'video.mp4'))
    image = cv2.imread(str(tmp_path / 'out' / files[0]))
    assert image.shape[1] == 500 and video.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert np.abs(video.read()[1][:len(image)].astype(int) - image).mean() < 8
    run(monkeypatch, visualize, toytown_nuscenes, *pairs[:2], '--out-dir', tmp_path / 'one',
        '--indices', 1, '--width', 500)
    one = cv2.imread(str(next((tmp_path / 'one').iterdir())))
    assert len(one) != len(image)            # fewer rows of images, larger ones from above


@pytest.mark.parametrize('config', ['centerpoint_teacher_pillar', 'bevdepth4d_student_r18'])
def test_browse_draws_every_mode_of_a_detector(config, toytown_nuscenes, tmp_path, monkeypatch):
    run(monkeypatch, browse_dataset, toytown_nuscenes,
        f'configs/detection/{config}_500it_toytown.py', '--out-dir', tmp_path, '-n', 1,
        '--width', 500, '--mode', *frames.MODES)
    assert {cv2.imread(str(p)).shape[1] for p in tmp_path.iterdir()} == {500}
    image = cv2.imread(str(tmp_path / 'train_000000_transformed.png'))
    assert (image[..., 2].astype(int) - image[..., 0] > 100).sum() > 100    # cars are orange


def test_visualize_needs_pairs_and_frames_that_exist(town, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, visualize, town, STUDENT, '--out-dir', tmp_path)
    assert 'expected pairs of CONFIG and CHECKPOINT, got 1' in capsys.readouterr().err
    with pytest.raises(UserError, match='the test data has frames 0 to 1, got'):
        run(monkeypatch, visualize, town, STUDENT, town / 'student.pth', '--out-dir', tmp_path,
            '--indices', 7)


def test_visualize_needs_a_name_for_each_model(town, tmp_path, monkeypatch, capsys):
    """The images are by name: one of two would be missing."""
    pair = STUDENT, town / 'student.pth'
    with pytest.raises(SystemExit):
        run(monkeypatch, visualize, town, *pair, *pair, '--out-dir', tmp_path)
    assert 'two models have the same name; tell them apart' in capsys.readouterr().err


def test_images_that_cannot_be_written_are_an_error(town, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    for tool, words in ((browse_dataset, (STUDENT, '-n', 1)),
                        (visualize, (STUDENT, town / 'student.pth', '--indices', 0))):
        with pytest.raises(UserError, match='cannot write: Not a directory'):
            run(monkeypatch, tool, town, *words, '--out-dir', tmp_path / 'file' / 'images')


def test_browse_draws_every_mode(town, tmp_path, monkeypatch):
    run(monkeypatch, browse_dataset, town, TEACHER, '--out-dir', tmp_path, '-n', 2, '--width', 600,
        '--mode', *frames.MODES)
    images = {p.name: cv2.imread(str(p)) for p in tmp_path.iterdir()}
    assert sorted(images) == [f'train_{n:06d}_{mode}.png' for n in (0, 3)
                                for mode in ('original', 'pipeline', 'transformed')]
    assert {p.shape[1] for p in images.values()} == {600}
    # 8 px a gap: half of the width (the image, 2:1, fills it), then two square views of the scan
    assert images['train_000000_original.png'].shape[0] == pytest.approx(
        26 + (22 + 292 + 8) * 2, abs=10)


def test_browse_draws_what_the_model_gets_unless_told(town, tmp_path, monkeypatch):
    run(monkeypatch, browse_dataset, town, STUDENT, '--out-dir', tmp_path, '-n', 1)
    assert [p.name for p in tmp_path.iterdir()] == ['train_000000_transformed.png']


def test_browse_shows_windows_until_told_to_stop(town, monkeypatch):
    shown, keys = [], iter([ord(' '), ord('q')])
    monkeypatch.setenv('DISPLAY', ':0')
    monkeypatch.setattr(cv2, 'imshow', lambda name, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, 'setWindowTitle', lambda *args: None)
    monkeypatch.setattr(cv2, 'waitKey', lambda *args: next(keys))
    run(monkeypatch, browse_dataset, town, STUDENT, '--show', '-n', 4, '--width', 300)
    assert len(shown) == 2


def test_browse_needs_a_display_to_show_and_a_place_for_images(town, monkeypatch, capsys):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    with pytest.raises(UserError, match='no display; give --out-dir DIR instead'):
        run(monkeypatch, browse_dataset, town, STUDENT, '--show')
    with pytest.raises(SystemExit):
        run(monkeypatch, browse_dataset, town, STUDENT)
    assert 'expected --out-dir DIR, --show, or both' in capsys.readouterr().err


CLASSES = ('road', 'line', 'stop_line')


@pytest.mark.parametrize('words, limits', [
    (['0.4'], [0.4]), (['0.4', '0.5', '0.6'], [0.4, 0.5, 0.6]), (['line=0.3'], [0.5, 0.3, 0.5]),
    (['0.4', 'stop_line=0.2', 'road=1'], [1.0, 0.4, 0.2]), (['RESULT'], [0.45, 0.35, 0.6])])
def test_thresholds_of_the_classes(words, limits, tmp_path):
    result = tmp_path / 'result.json'
    result.write_text(json.dumps({
        'map/mean': 40.0, 'map/road': 80.0, 'map/road_0.45': 80.0, 'map/road_0.50': 79.0,
        'map/line_0.35': 20.0, 'map/line_0.40': 10.0, 'map/stop_line_0.35': 1.0,
        'map/stop_line_0.60': 30.0}))
    words = [str(result) if word == 'RESULT' else word for word in words]
    assert visualize.read_thresholds(words, CLASSES) == limits


@pytest.mark.parametrize('words, message', [
    (['lines=0.3'], "--threshold lines: no such class; did you mean 'line'"),
    (['0.3', '0.4'], '--threshold: 2 numbers for 3 classes'),
    (['high'], '--threshold high: expected a number, CLASS=NUMBER, or a RESULT.json'),
    (['line=x'], '--threshold x: expected a number'),
    (['{}'], 'it has no IoU of road by threshold, such as map/road_0.50')])
def test_wrong_thresholds(words, message, tmp_path):
    (tmp_path / 'r.json').write_text('{"bev/IoU100": 3}')
    words = [str(tmp_path / 'r.json') if word == '{}' else word for word in words]
    with pytest.raises(UserError, match=message):
        visualize.read_thresholds(words, CLASSES)


def test_roles_need_a_checkpoint_of_the_training(town, tmp_path, monkeypatch):
    """A published student has no assistant; the teacher's file is needed as in training."""
    config = 'configs/kd360/kd360_distill_r18_500it_toytown_am.py'
    with pytest.raises(UserError, match='--roles: .*student.pth has no assistant; give a check'):
        run(monkeypatch, visualize, town, config, town / 'student.pth', '--roles', '--out-dir',
            tmp_path)
