import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData, PixelData

from mmdet3d_plugin.geometry import BEVGrid, raster
from mmdet3d_plugin.visualization import draw

PANO = dict(name='CAM_PANO', lens='equirect', lidar2cam=np.eye(4), height=100, width=200,
            fov_up=np.pi / 2, fov_down=-np.pi / 2)
BLACK = np.zeros((100, 200, 3), np.uint8)


def drawn(image):
    return np.argwhere(image.any(-1))


def test_a_box_ahead_is_drawn_ahead_and_the_image_is_left_alone():
    out = draw.draw_boxes(BLACK, PANO, [[10, 0, 0, 4, 2, 1.5, 0]])
    rows, cols = drawn(out).T
    # the near face is at 7.1 degrees to both sides: 4 px, and 1 px of anti-aliasing
    assert 94 <= cols.min() and cols.max() <= 105 and abs(rows.mean() - 49.5) < 1.5
    assert not BLACK.any()


def test_a_box_behind_is_cut_at_the_border_not_drawn_across():
    out = draw.draw_boxes(BLACK, PANO, [[-10, 0, 0, 4, 2, 1.5, 0]])
    cols = drawn(out)[:, 1]
    assert ((cols < 8) | (cols > 191)).all() and (cols < 8).any() and (cols > 191).any()


def test_boxes_behind_a_pinhole_are_not_drawn():
    lidar2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.]])
    camera = dict(PANO, lens='pinhole', lidar2cam=lidar2cam,
                  cam2img=[[100, 0, 99.5], [0, 100, 49.5], [0, 0, 1.]])
    assert drawn(draw.draw_boxes(BLACK, camera, [[10, 0, 0, 4, 2, 1.5, 0]])).size
    assert not drawn(draw.draw_boxes(BLACK, camera, [[-10, 0, 0, 4, 2, 1.5, 0]])).size


def test_counts_are_of_the_boxes_that_a_drawing_shows():
    lidar2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.]])
    camera = dict(PANO, lens='pinhole', lidar2cam=lidar2cam,
                  cam2img=[[100, 0, 99.5], [0, 100, 49.5], [0, 0, 1.]])
    size = [4, 2, 1.5, 0]
    boxes = np.array([[10, 0, 0, *size], [10, 10, 0, *size], [-10, 0, 0, *size]])
    assert draw.count_in_image(camera, boxes) == 2      # the second is half outside
    assert draw.count_in_image(camera, boxes[2:]) == 0
    assert draw.count_in_image(PANO, boxes) == 3 and draw.count_in_image(PANO, boxes[:0]) == 0
    grid = BEVGrid((0, 9), (-20, 20), 1.0)
    assert draw.count_on_map(grid, boxes) == 2 and draw.count_on_map(grid, boxes[:0]) == 0


def test_captions_count_what_each_camera_sees(monkeypatch):
    rows = []
    monkeypatch.setattr(draw, 'panel', lambda found, *_, **__: rows.extend(found))
    cameras = []
    for name, azimuth in (('F', 0), ('FR', -60), ('FL', 60), ('B', 180), ('BL', 120), ('BR', -120)):
        x, y = np.cos(np.deg2rad(azimuth)), np.sin(np.deg2rad(azimuth))
        cameras.append(dict(
            PANO, name=name, lens='pinhole', cam2img=[[100, 0, 99.5], [0, 100, 49.5], [0, 0, 1.]],
            lidar2cam=np.array([[y, -x, 0, 0], [0, 0, -1, 0], [x, y, 0, 0], [0, 0, 0, 1.]])))
    sample = Det3DDataSample(metainfo=dict(cameras=cameras, token='a'))
    boxes = torch.tensor([[10, 0, 0, 4, 2, 1.5, 0], [-10, 0, 0, 4, 2, 1.5, 0],
                          [-14, 0, 0, 4, 2, 1.5, 0]])
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, origin=(.5, .5, .5)))
    draw.frame_panel(sample, dict(img=torch.zeros((6, 3, 100, 200), dtype=torch.uint8)), {})
    assert [[caption for caption, _ in row] for _, row in rows] == [
        ['FL, 0 of 3 boxes', 'F, 1 of 3 boxes', 'FR, 0 of 3 boxes'],
        ['BL, 0 of 3 boxes', 'B, 2 of 3 boxes', 'BR, 0 of 3 boxes']]


def test_points_land_on_their_pixel_near_over_far():
    out = draw.draw_points(BLACK, PANO, [[5, 0.001, 0], [40, 0.001, 0], [0, -5, 0.]], radius=0)
    assert out[49:51, 99:101].any() and out[49:51, 149:151].any()
    assert len(drawn(out)) == 2
    red, _, blue = drawn(out[:, 90:110]).size and out[tuple(drawn(out)[0])]
    assert red > blue


@pytest.mark.parametrize('rows, cols', [('-x', '-y'), ('+x', '+y'), ('+y', '+x')])
def test_maps_are_seen_from_above_whatever_the_grid(rows, cols):
    grid = BEVGrid((-20, 20), (-20, 20), 1.0, rows=rows, cols=cols)
    truth = raster.rasterize([[14, 0, 0, 4, 4, 1, 0]], [0], grid, 1)['seg']
    pred = raster.rasterize([[0, 14, 0, 4, 4, 1, 0]], [0], grid, 1)['seg']
    out = draw.draw_bev(grid, truth, pred, size=40, rings=())
    assert (out[6, 20] == draw.MISS).all()             # ahead is up
    assert (out[20, 6] == draw.FALSE_ALARM).all()      # left is left
    assert (draw.draw_bev(grid, truth, truth, size=40, rings=())[6, 20] == draw.HIT).all()
    assert (out[35, 35] == draw.GROUND).all()


def test_fronts_that_are_not_known_are_not_marked():
    box = [[10, 0, 0, 4, 2, 1.5, 0]]
    with_front, without = (draw.draw_boxes(BLACK, PANO, box, fronts=f) for f in (True, False))
    assert 0 < len(drawn(without)) < len(drawn(with_front))


def test_colours_of_instances_differ_and_stay():
    colours = draw.instance_colours(np.arange(1, 7))
    assert colours.dtype == np.uint8 and len({tuple(c) for c in colours.tolist()}) == 6
    apart = np.abs(colours[:, None].astype(int) - colours).sum(-1)
    assert apart[np.triu_indices(6, 1)].min() > 60
    np.testing.assert_array_equal(draw.instance_colours([[4]])[0, 0], colours[3])


@pytest.mark.parametrize('rows, cols', [('-x', '-y'), ('+y', '+x')])
def test_instances_have_their_colour_from_above(rows, cols):
    grid = BEVGrid((-20, 20), (-20, 20), 1.0, rows=rows, cols=cols)
    boxes = [[14, 0, 0, 4, 4, 1, 0], [0, 14, 0, 4, 4, 1, 0]]
    ids = raster.rasterize(boxes, [0, 1], grid, 2)['instances']
    out = draw.draw_bev(grid, instances=ids, size=40, rings=())
    np.testing.assert_array_equal([out[6, 20], out[20, 6]], draw.instance_colours([1, 2]))
    assert (out[35, 35] == draw.GROUND).all()


def test_ego_marker_is_in_the_middle():
    out = draw.draw_bev(BEVGrid((-20, 20), (-20, 20), 1.0), size=400, rings=(10,))
    ink = np.argwhere((out == draw.INK).all(-1))
    assert np.abs(ink.mean(0) - 200).max() < 15


def test_lidar_image_stacks_coloured_channels():
    out = draw.draw_lidar_image(np.stack([np.zeros((4, 8)), np.ones((4, 8))]), height=10)
    assert out.shape == (20, 8, 3) and (out[0] != out[-1]).any()


def test_panel_keeps_its_width_and_aspects():
    out = draw.panel([('one', [('a', np.full((50, 50, 3), 7, np.uint8)),
                               ('b', np.full((50, 100, 3), 9, np.uint8))]),
                      ('two', [('c', np.full((10, 10, 3), 5, np.uint8))])], width=600)
    assert out.shape[1] == 600
    for value, aspect in ((7, 1), (9, 2), (5, 1)):
        rows, cols = np.argwhere((out == value).all(-1)).T
        assert np.ptp(cols) + 1 == pytest.approx(aspect * (np.ptp(rows) + 1), abs=3)


def test_frame_panel_draws_what_there_is():
    grid = BEVGrid((-20, 20), (-20, 20), 1.0)
    box = np.array([[10, 0, 0, 4, 2, 1.5, 0]], np.float32)
    sample = Det3DDataSample(metainfo=dict(cameras=[PANO], bev_grid=grid.asdict(), token='a'))
    seg = torch.from_numpy(raster.rasterize(box, [0], grid, 1)['seg'])
    sample.gt_bev = PixelData(seg=seg)
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(box, origin=(.5, .5, .5)), labels_3d=torch.zeros(1))
    inputs = dict(img=torch.zeros(1, 3, 100, 200, dtype=torch.uint8),
                  lidar_img=torch.rand(2, 8, 64), points=torch.rand(5, 3))
    full = draw.frame_panel(sample, inputs, dict(student=seg.numpy()), 'frame', width=500)
    hits = (full == draw.HIT).all(-1).sum()
    assert hits > 50 and full.shape[1] == 500
    ids = torch.from_numpy(raster.rasterize(box, [0], grid, 1)['instances'])
    found = Det3DDataSample(pred_bev=PixelData(instances=ids),
                            pred_instances_3d=sample.gt_instances_3d)
    more = draw.frame_panel(sample, inputs, dict(student=seg.numpy()), 'frame', 500,
                            dict(student=found))
    assert more.shape[0] > full.shape[0] and (more == draw.HIT).all(-1).sum() == hits
    red, green, _ = draw.instance_colours([1])[0].tolist()
    assert (more[full.shape[0]:, :, 1] == green).sum() > 50
    above = np.argwhere((more == draw.HIT).all(-1))[0, 0]            # the panoramas
    assert green > 2 * red and (more[:above, :, 1] > 100 + more[:above, :, 0].astype(int)).any()
    bare = Det3DDataSample(metainfo=dict(cameras=[PANO]))
    assert draw.frame_panel(bare, dict(img=inputs['img']), {}, width=300).shape[1] == 300


def test_a_shown_panorama_keeps_boxes_on_their_pixels():
    image = BLACK.copy()
    image[49:51, 149:151] = 255                       # what is exactly to the right
    shown, camera = draw.scaled_view(image, dict(PANO, img_aug=np.eye(3)), 400)
    assert shown.shape == (78, 400, 3)                  # 70 of 180 degrees, doubled in size
    row, col = np.argwhere(shown[..., 0] > 200).mean(0)
    pixel, _, valid = draw._project(camera, [[0, -10, 0.]])
    assert valid[0]
    np.testing.assert_allclose(pixel[0], [col, row], atol=0.6)


@pytest.mark.parametrize('ahead, place', [('+x', (12, -4)), ('+y', (4, 12)), ('-x', (-12, 4)),
                                          ('-y', (-4, -12))])
@pytest.mark.parametrize('rows, cols', [('+x', '+y'), ('-x', '-y')])
def test_ahead_is_up_and_right_is_right_in_any_frame(rows, cols, ahead, place):
    """A place 12 m ahead and 4 m to the right."""
    grid = BEVGrid((-20, 20), (-20, 20), 1.0, rows, cols, forward_axis=ahead)
    seg = np.zeros((1, 40, 40))
    row, col = grid.to_index(torch.tensor(place) + 1e-3)[0]
    seg[0, row, col] = 1
    out = draw.draw_bev(grid, seg, size=40, rings=())
    row, col = np.argwhere((out == draw.TRUTH).all(-1))[0]
    assert abs(row + 0.5 - (20 - 12)) <= 0.5 and abs(col + 0.5 - (20 + 4)) <= 0.5


def test_later_classes_of_a_map_lie_on_top():
    grid = BEVGrid((-20, 20), (-20, 20), 1.0)
    seg = np.zeros((2, 40, 40))
    seg[0, :10], seg[1, :5] = 0.9, 0.45
    out = draw.draw_map(grid, seg, size=40, threshold=(0.5, 0.4))
    road, crossing = draw.map_colours(6)[:2]
    assert (out[:5] == crossing).all() and (out[5:10] == road).all()
    assert (out[10:15] == draw.GROUND).all()
    assert (draw.draw_map(grid, seg, size=40)[:10] == road).all()


def test_colours_of_classes_differ_and_the_legend_shows_them():
    colours = draw.map_colours(9)
    assert len({tuple(c) for c in colours.tolist()}) == 9
    legend = draw.map_legend(('road', 'line'), 200)
    assert legend.shape == (24, 200, 3)
    assert (legend[12, 12] == colours[0]).all() and (legend[12, 108] == colours[1]).all()


def test_frame_panel_of_a_map_has_a_image_for_each_model():
    grid = BEVGrid((-20, 20), (-20, 20), 1.0)
    sample = Det3DDataSample(metainfo=dict(bev_grid=grid.asdict(), map_classes=('road', 'line')))
    sample.gt_bev = PixelData(seg=torch.zeros(2, 40, 40))
    one = draw.frame_panel(sample, {}, dict(a=np.zeros((2, 40, 40))), width=600)
    two = draw.frame_panel(sample, {}, dict(a=np.zeros((2, 40, 40)), b=np.ones((2, 40, 40))),
                           width=600)
    assert one.shape[1] == two.shape[1] == 600 and one.shape[0] > two.shape[0]
    assert (two == draw.map_colours(2)[1]).all(-1).sum() > 20_000  # b: the last class everywhere
