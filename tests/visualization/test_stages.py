"""Images of a frame around each transform."""
import cv2
import numpy as np
import pytest
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints

from mmdet3d_plugin.datasets.transforms import augment
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.visualization import draw, stages

GRID = dict(x_range=(-16, 16), y_range=(-16, 16), resolution=1.0)
FRONT, LEFT = [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], \
    [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


@pytest.fixture
def frame(tmp_path):
    """Two pinhole images, red ahead and green to the left, and a car 6 m ahead."""
    images = {}
    for name, bgr, lidar2cam in (('A', (0, 0, 200), FRONT), ('B', (0, 200, 0), LEFT)):
        path = tmp_path / f'{name}.png'
        cv2.imwrite(str(path), np.full((40, 60, 3), bgr, np.uint8))
        images[name] = dict(img_path=str(path), lens='pinhole', height=40, width=60,
                            lidar2cam=lidar2cam, cam2img=[[30, 0, 29.5], [0, 30, 19.5], [0, 0, 1]])
    boxes = LiDARInstance3DBoxes(np.array([[6, 0, 0, 4, 2, 1.5, 0]], np.float32),
                                 origin=(.5, .5, .5))
    return dict(images=images, classes=('car', ), ann_info=dict(
        gt_bboxes_3d=boxes, gt_labels_3d=np.array([0])))


def load(results):
    """A panorama, and five points in the car."""
    points = np.array([[6 + x, 0, 0] for x in range(-2, 3)], np.float32)
    camera = dict(name='P', lens='equirect', lidar2cam=np.eye(4), height=32, width=64, fov_up=0.5,
                  fov_down=-0.5, img_aug=np.eye(3))
    return dict(results, img=[np.zeros((32, 64, 3), np.uint8)], cameras=[camera],
                points=LiDARPoints(points, points_dim=3))


def yellow(image):
    """Columns in which boxes are drawn."""
    red, green, blue = np.moveaxis(image, -1, 0)
    return np.flatnonzero(((red > 100) & (green > 100) & (blue < 60)).any(0))


def test_images_are_those_on_disk_until_loaded(frame):
    before, after = stages.images_of(frame), stages.images_of(load(frame))
    assert list(before) == ['images'] and list(after) == ['images', 'from above']
    assert before['images'].shape == (40, 120, 3)
    assert before['images'][20, [30, 90]].tolist() == [[200, 0, 0], [0, 200, 0]]
    columns = yellow(after['images'])
    assert 24 <= columns.min() < 32 <= columns.max() < 40  # ahead


def test_boxes_follow_the_turned_panorama(frame):
    turned = augment.rotate(load(frame), 16, 64)  # a quarter to the right
    columns = yellow(stages.images_of(turned)['images'])
    assert 40 <= columns.min() < 48 <= columns.max() < 56


def test_packing_changes_nothing_that_can_be_seen(frame):
    steps = [load, TRANSFORMS.build(dict(type='RasterizeBEV', grid=GRID, classes=[['car']])),
             lambda results: augment.rotate(dict(results), 16, 64),
             TRANSFORMS.build(dict(type='PackBEVInputs'))]
    for step in steps:
        before, frame = frame, step(frame)
    old, new = stages.images_of(before), stages.images_of(frame)
    assert list(old) == list(new) == ['images', 'from above', 'centerness']
    for key in old:
        np.testing.assert_array_equal(old[key], new[key])


def test_a_pipeline_shows_what_each_transform_changes(frame, monkeypatch):
    drawn = []
    monkeypatch.setattr(stages, 'panel', lambda rows, width: drawn.extend(rows))
    stages.pipeline_panel(frame, [
        ('Load', load), ('Nothing', dict),
        ('Targets', TRANSFORMS.build(dict(type='RasterizeBEV', grid=GRID, classes=[['car']]))),
    ], BEVGrid(**GRID), 'title')
    assert [(title, [name for name, _ in images]) for title, images in drawn] == [
        ('title', []),
        ('1  Load:  img 1 x 32x64x3 uint8,  cameras,  points 5x3 float32', []),
        ('', ['images, before', 'images, after']),
        ('', ['from above, new']),
        ('2  Nothing:  no new entries', []),
        ('3  Targets:  gt_bev', []),
        ('', ['from above, before', 'from above, after']),
        ('', ['centerness, new'])]
    above = drawn[6][1]
    grown = [(image == 60).all(-1).sum() for _, image in above]
    assert grown[0] == 0 and grown[1] > 8 * 15 ** 2 / 2  # 4 x 2 cells of 15 px, less the outline


def test_maps_of_several_classes_are_drawn_one_by_one(frame, monkeypatch):
    drawn = []
    monkeypatch.setattr(stages, 'panel', lambda rows, width: drawn.extend(rows))
    seg = np.zeros((3, 32, 32), np.float32)
    seg[1, :16] = 1  # ahead
    stages.pipeline_panel(frame, [('Map', lambda r: dict(r, bev_grid=GRID, gt_bev=dict(seg=seg)))])
    names, images = zip(*drawn[-1][1])
    assert names[-3:] == ('channel 0, new', 'channel 1, new', 'channel 2, new')
    bright = [image.mean(-1)[[100, 400], 240] > 100 for image in images[-3:]]
    np.testing.assert_array_equal(bright, [[False, False], [True, False], [False, False]])


def test_wide_images_stand_one_above_the_other(frame, monkeypatch):
    drawn = []
    monkeypatch.setattr(stages, 'panel', lambda rows, width: drawn.extend(rows))
    wide = load(frame)
    wide['img'] = [np.zeros((8, 64, 3), np.uint8)]
    wide['cameras'][0]['height'] = 8
    stages.pipeline_panel(wide, [('Turn', lambda r: augment.rotate(dict(r), 16, 64))])
    assert [[name for name, _ in images] for _, images in drawn[1:3]] == [
        ['images, before'], ['images, after']]


def test_originals_have_boxes_where_the_lens_is_known(frame):
    frame['images']['B'].update(source_lens='dual_fisheye')
    out = stages.original_panel(frame, np.zeros((3, 3)), width=600)
    assert out.shape[1] == 600
    assert 100 < yellow(out[:200]).min() < yellow(out[:200]).max() < 200  # in the middle of A


@pytest.mark.parametrize('ahead, turn', [('+x', 0), ('+y', 90), ('-x', 180), ('-y', -90)])
def test_six_images_stand_from_left_to_right_of_the_car(ahead, turn):
    matrices = {}
    for azimuth, name in ((0, 'F'), (-56, 'FR'), (55, 'FL'), (180, 'B'), (108, 'BL'), (-110, 'BR')):
        x, y = np.cos(np.deg2rad(azimuth + turn)), np.sin(np.deg2rad(azimuth + turn))
        matrices[name] = [[y, -x, 0, 0], [0, 0, -1, 0], [x, y, 0, 0], [0, 0, 0, 1]]
    assert draw.by_direction(matrices, BEVGrid(forward_axis=ahead)) == [['FL', 'F', 'FR'],
                                                                ['BL', 'B', 'BR']]


def test_classes_of_a_map_have_their_names_and_colours(frame):
    seg = np.zeros((2, 32, 32), np.float32)
    seg[1, :16] = 1
    shown = stages.images_of(dict(frame, gt_bev=dict(seg=seg), map_classes=('road', 'line'),
                                    bev_grid=BEVGrid(**GRID).asdict()))
    assert list(shown) == ['images', 'map', 'road', 'line']
    assert (shown['map'][:200] == draw.map_colours(2)[1]).all()


def test_missing_files_leave_images_out(frame):
    frame['images']['A']['img_path'] += 'x'
    assert list(stages.load_images(frame)) == ['B']
    assert stages.images_of(dict(images={})) == {}
