"""Boxes of detectors in images and from above."""
import cv2
import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.visualization import detections, draw
from mmdet3d_plugin.visualization.video import writing_video

FRONT = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.]])
CAMERA = dict(name='F', lens='pinhole', lidar2cam=FRONT, height=100, width=200,
              cam2img=[[100, 0, 99.5], [0, 100, 49.5], [0, 0, 1.]])
PANO = dict(name='P', lens='equirect', lidar2cam=np.eye(4), height=100, width=200,
            fov_up=np.pi / 2, fov_down=-np.pi / 2)
BLACK = np.zeros((100, 200, 3), np.uint8)
CAR = [10, 0, 0, 4, 2, 2, 0]
RED, GREEN = (200, 0, 0), (0, 200, 0)


def instances(boxes, labels=None, scores=None):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    made = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, boxes.shape[1], origin=(.5, .5, .5)),
        labels_3d=torch.tensor(labels or [0] * len(boxes), dtype=torch.int64))
    if scores is not None:
        made.scores_3d = torch.tensor(scores)
    return made


def tinted(image, more, less):
    """Where one of R, G, B is above another: coloured, also where a line is blended."""
    return image[..., 'RGB'.index(more)].astype(int) - image[..., 'RGB'.index(less)] > 60


def test_arrows_show_the_motion_of_one_second_on_the_ground():
    boxes = [CAR + [3, 4], CAR + [np.nan, np.nan], CAR + [0.3, 0.3], [0, 5, 1, 4, 2, 2, 3, -2, 0]]
    lines, owner = detections.velocity_arrows(boxes)
    assert owner.tolist() == [0, 0, 0, 3, 3, 3]
    np.testing.assert_allclose(lines[0], [[10, 0, -1], [13, 4, -1]])
    np.testing.assert_allclose(lines[3], [[0, 5, 0], [-2, 5, 0]])
    # both barbs begin at the tip, as long as each other, on both sides
    np.testing.assert_allclose(lines[4:, 0], [[-2, 5, 0]] * 2)
    np.testing.assert_allclose(lines[4:, 1], [[-1.5, 5.24, 0], [-1.5, 4.76, 0]])
    np.testing.assert_allclose(detections.velocity_arrows(boxes, 2)[0][0, 1], [16, 8, -1])
    assert len(detections.velocity_arrows(np.zeros((0, 9)))[0]) == 0
    assert len(detections.velocity_arrows([CAR])[0]) == 0


def test_only_high_scores_are_drawn():
    found = detections.Objects.of(instances([CAR, CAR, CAR], [2, 1, 0], [0.29, 0.3, 0.9]), 0.3)
    assert found.labels.tolist() == [1, 0] and found.boxes[0].tolist() == CAR
    assert len(detections.Objects.of(instances([CAR, CAR])).labels) == 2


@pytest.mark.parametrize('ahead, rows, cols, box, velocity', [
    ('+x', '+x', '+y', [8, 0, 0], [0, 5]), ('+y', '+y', '+x', [0, 8, np.pi / 2], [-5, 0]),
    ('-x', '-x', '-y', [-8, 0, np.pi], [0, -5])])
def test_from_above_ahead_is_up_with_heading_and_velocity(ahead, rows, cols, box, velocity):
    """A car 8 m ahead that faces away and slides to the left at 5 m/s; ten pixels a metre."""
    grid = BEVGrid((-20, 20), (-20, 20), 1.0, rows, cols, forward_axis=ahead)
    values = [[*box[:2], 0, 4, 2, 2, box[2], *velocity]]
    out = detections.draw_objects_bev(grid, values, [RED], size=400)
    red = tinted(out, 'R', 'G')
    still = tinted(detections.draw_objects_bev(grid, [values[0][:7]], [RED], size=400), 'R', 'G')
    rows, cols = np.argwhere(still).T
    assert (rows.min(), rows.max()) == pytest.approx((100, 140), abs=1)      # 6 to 10 m ahead
    assert (cols.min(), cols.max()) == pytest.approx((190, 210), abs=1)
    assert still[102:118, 200].all() and not still[124:138, 195:206].any()   # centre to front
    assert red[120, 155:185].all() and not red[120, 215:].any()              # 5 m to the left
    assert np.argwhere(red)[:, 1].min() == pytest.approx(150, abs=1)


@pytest.mark.parametrize('camera', [CAMERA, PANO])
def test_in_images_the_arrow_lies_on_the_lower_face(camera):
    boxes = [CAR + [0, -6], CAR + [np.nan, np.nan]]
    moving, unknown = (detections.draw_objects(BLACK, camera, [box], [GREEN]) for box in boxes)
    known = draw.draw_boxes(BLACK, camera, [CAR], GREEN)
    np.testing.assert_array_equal(unknown, known)
    added = np.argwhere((moving != known).any(-1))
    tip = draw._project(camera, [[10, -6, -1.]])[0][0]
    assert added[:, 1].max() == pytest.approx(tip[0], abs=1.5)               # to the right
    assert added[np.argmax(added[:, 1]), 0] == pytest.approx(tip[1], abs=1.5)


def test_a_panel_has_the_classes_colours_and_prediction_beside_truth():
    sample = Det3DDataSample(metainfo=dict(
        classes=('car', 'truck', 'trailer', 'bus'), bev_aug=np.diag([1, -1, 1, 1.])))
    sample.gt_instances_3d = instances([[10, 5, 0, 4, 2, 2, 0]], [0])
    found = Det3DDataSample(pred_instances_3d=instances(
        [[10, 5, 0, 4, 2, 2, 0], [-10, 5, 0, 4, 2, 2, 0]], [3, 2], [0.8, 0.1]))
    grid = BEVGrid((-20, 20), (-20, 20), 1.0)
    out = detections.detection_panel(sample, [(CAMERA, BLACK)], predictions=dict(a=found),
                                     grid=grid, width=1000)
    car, bus = tinted(out, 'R', 'B'), tinted(out, 'B', 'R')            # orange and blue
    images, above = slice(0, 1000), slice(1040, 1530)
    # the images, one above the other, show the frame before the mirror: to the right
    for colour in (car, bus):
        columns = np.argwhere(colour[images])[:, 1]
        assert len(columns) and columns.min() > 500
    # from above the truth is left of the prediction, and the low score is not there
    assert np.argwhere(car[above])[:, 1].max() < 500 < np.argwhere(bus[above])[:, 1].min()
    assert np.argwhere(bus[above])[:, 0].max() < 245


def test_a_panel_without_boxes_images_or_names():
    sample = Det3DDataSample(metainfo={})
    assert detections.detection_panel(sample, [], width=300).shape[1] == 300
    sample.gt_instances_3d = instances(np.zeros((0, 9)))
    out = detections.detection_panel(sample, [(CAMERA, BLACK)], width=300)
    assert out.shape[1] == 300


def test_only_the_newest_images_are_shown():
    cameras = [dict(CAMERA, time=0), dict(PANO, time=1)]
    images = torch.stack([torch.full((1, 3, 2, 2), 7), torch.full((1, 3, 2, 2), 9)])
    [(camera, image)] = detections.newest_views(
        Det3DDataSample(metainfo=dict(cameras=cameras)), dict(img=images))
    assert camera['name'] == 'F' and image.shape == (2, 2, 3) and (image == 7).all()
    assert detections.newest_views(Det3DDataSample(), dict(points=images)) == []


def test_videos_have_all_images_or_are_not_there(tmp_path):
    path = tmp_path / 'out' / 'video.mp4'
    with writing_video(path, 5) as add:
        for shade, size in ((40, (61, 91)), (120, (80, 50)), (200, (61, 91))):
            add(np.full((*size, 3), shade, np.uint8))
        assert not path.exists()
    video = cv2.VideoCapture(str(path))
    images = [video.read()[1] for _ in range(3)]
    assert not video.read()[0] and video.get(cv2.CAP_PROP_FPS) == 5
    assert {image.shape for image in images} == {(62, 92, 3)}
    assert [round(image[30, 25].mean() / 40) for image in images] == [1, 3, 5]
    assert images[1][30, 70].mean() > 245                                    # filled with white
    with writing_video(tmp_path / 'none.mp4', 5):
        pass
    with pytest.raises(ZeroDivisionError), writing_video(tmp_path / 'none.mp4', 5) as add:
        add(images[0])
        raise ZeroDivisionError
    with pytest.raises(UserError, match='the video has not all of its 2 images; make room in'):
        with writing_video(tmp_path / 'none.mp4', 5) as add:
            add(images[0])
            add.__self__.count += 1  # as if a full disk had lost one
    assert [p.name for p in tmp_path.iterdir()] == ['out']
