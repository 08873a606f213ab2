"""Toytown must be consistent: sensors, labels and files describe one and the same world."""

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('trimesh')
pytest.importorskip('embreex')

from data_converter.toytown import dur360bev_layout as layout  # noqa: E402
from data_converter.toytown import folder as folders  # noqa: E402
from data_converter.toytown.meshes import Material, frustum, merge  # noqa: E402
from data_converter.toytown.road_users import (
    VEHICLES,
    make_pedestrian,  # noqa: E402
    make_vehicle,
)
from data_converter.toytown.sensors import (
    RayScene,
    SpinningLidar,
    panorama_directions,  # noqa: E402
    take_scan,
)
from data_converter.toytown.world import Town  # noqa: E402

SMALL = dict(image_size=(32, 64), scan_size=(16, 256), supersample=1, progress=False)
PANORAMA = 1024, 2048


@pytest.fixture(scope='module', params=[(3, 0, 2), (3, 1, 9), (11, 4, 5)], ids=str)
def rendered(request):
    """(town, frame, rig, time) of three towns: image 64 × 128, scan 64 × 1024."""
    seed, sequence, index = request.param
    town = Town(seed, sequence, 6.0)
    rig = layout.make_rig((64, 128), (64, 1024), 1)
    return town, layout.render_frame(town, index, rig), rig, index * 0.5


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A finished data set of 10 frames in 5 sequences, written by one process."""
    out = tmp_path_factory.mktemp('toytown') / 'data'
    layout.write(out, 10, seed=5, sequences=5, **SMALL)
    return out


def files(root):
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()
    }


def to_panorama(xyz, size):
    """Continuous (row, column) in an equirectangular panorama, pixel centres at whole numbers."""
    height, width = size
    x, y, z = np.asarray(xyz, float).T
    column = ((np.arctan2(-y, x) / np.pi + 1) * width - 1) / 2
    return (0.5 - np.arctan2(z, np.hypot(x, y)) / np.pi) * height - 0.5, column


def share_on_own_pixels(points, owner, panorama, tolerance):
    """Share of points whose owner is among the pixels not farther away than ``tolerance``."""
    row, column = (np.rint(v).astype(int) for v in to_panorama(points, panorama.shape))
    found = np.zeros(len(points), bool)
    for dr in range(-tolerance, tolerance + 1):
        for dc in range(-tolerance, tolerance + 1):
            found |= panorama[row + dr, (column + dc) % panorama.shape[1]] == owner
    return found.mean()


def vehicle_returns(town, frame, rig):
    """Points in the camera frame that the LiDAR measured on vehicles, and whose they are."""
    vehicles = [u.instance for u in town.road_users if u.category != 'Pedestrian']
    on_vehicle = np.isin(frame.scan.instance, vehicles)
    points = frame.scan.xyz[on_vehicle] @ rig.lidar2cam[:3, :3].T + rig.lidar2cam[:3, 3]
    assert len(points) > 1000
    return points, frame.scan.instance[on_vehicle]


def cast_instances(frame, rays):
    flat = rays.reshape(-1, 3) @ frame.camera_pose[:3, :3].T.astype(np.float32)
    return frame.scene.instances(frame.camera_pose[:3, 3], flat).reshape(rays.shape[:-1])


def reference_panorama(image, size=PANORAMA, aperture=203.0):
    """Dual fisheye as stored → panorama, written down from the data set's description."""
    h = len(image)
    upright = np.concatenate([np.rot90(image[:, :h], -1), np.rot90(image[:, h:])], 1)
    rows, columns = size
    i, j = np.arange(columns), np.arange(rows)
    m = np.where(i < columns // 2, 1 - 2 * i / (columns - 1), -1 + 2 * i / (columns - 1))
    lon, lat = np.meshgrid(m * np.pi, (-1 + 2 * j / (rows - 1)) * np.pi / 2)
    px, py, pz = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    r = 2 / np.deg2rad(aperture) * np.arctan2(np.hypot(px, pz), py)
    theta = np.arctan2(pz, px)
    left = np.broadcast_to(i < columns // 2, lat.shape)
    xs = h / 2 * np.where(left, 1 + r * np.cos(theta), 3 - r * np.cos(theta))
    ys = h / 2 * (1 + r * np.sin(theta))
    xs, ys = (np.minimum(np.floor(v), top).astype(int) for v, top in ((xs, 2 * h - 1), (ys, h - 1)))
    return np.roll(upright[ys, xs], -columns // 4, 1)


# ------------------------------------------------------------------ one world for both sensors
def test_lidar_returns_on_vehicles_fall_on_their_pixels(rendered):
    town, frame, rig, _ = rendered
    points, owner = vehicle_returns(town, frame, rig)
    panorama = cast_instances(frame, panorama_directions(*PANORAMA))
    assert share_on_own_pixels(points, owner, panorama, tolerance=1) >= 0.99
    assert share_on_own_pixels(points, owner, panorama, tolerance=0) >= 0.97
    mirrored = points * (1, -1, 1)
    assert share_on_own_pixels(mirrored, owner, panorama, tolerance=1) < 0.5


def test_native_image_becomes_that_panorama(rendered):
    """The stored orientation, through the reference remap of a 640 × 1280 instance image."""
    town, frame, rig, _ = rendered
    points, owner = vehicle_returns(town, frame, rig)
    big = layout.make_rig((640, 1280), (16, 256))
    stored = layout.native(cast_instances(frame, big.camera.directions()[0][:, :, 0]))
    assert stored.shape == (640, 1280)
    panorama = reference_panorama(stored)
    assert share_on_own_pixels(points, owner, panorama, tolerance=1) >= 0.99
    direct = cast_instances(frame, panorama_directions(*PANORAMA))
    assert (panorama == direct).mean() > 0.97


def test_native_undoes_the_loaders_rotation():
    image = np.arange(4 * 8, dtype=np.uint8).reshape(4, 8)
    stored = layout.native(image)
    left = cv2.rotate(np.ascontiguousarray(stored[:, :4]), cv2.ROTATE_90_CLOCKWISE)
    right = cv2.rotate(np.ascontiguousarray(stored[:, 4:]), cv2.ROTATE_90_COUNTERCLOCKWISE)
    np.testing.assert_array_equal(np.concatenate([left, right], 1), image)
    assert stored[:, 0].tolist() == [3, 2, 1, 0]


def test_ranges_match_the_boxes(rendered):
    """Every echo of a labelled object lies in its box, to within 5 sigma of the range noise."""
    _, frame, rig, _ = rendered
    assert 20_000 < frame.scan.range_mm.max() < 120_100
    slack = 5 * rig.lidar.noise + 0.002
    for box in frame.boxes:
        points = frame.scan.xyz[frame.scan.instance == box.instance] - box.center
        c, s = math.cos(box.yaw), math.sin(box.yaw)
        local = np.stack(
            [
                c * points[:, 0] + s * points[:, 1],
                c * points[:, 1] - s * points[:, 0],
                points[:, 2],
            ],
            1,
        )
        assert (np.abs(local) <= np.array(box.size) / 2 + slack).all(), box
        assert len(points) == box.returns >= layout.MIN_RETURNS


@pytest.mark.parametrize('kind', VEHICLES)
def test_every_shape_fills_its_box_and_no_more(kind):
    for seed in range(5):
        category, _, (length, width, height), build = make_vehicle(
            np.random.default_rng(seed), {kind: 1.0}
        )
        vertices = build().vertices
        low, high = vertices.min(0), vertices.max(0)
        assert (low >= np.array([-length / 2, -width / 2, 0]) - 1e-4).all()
        assert (high <= np.array([length / 2, width / 2, height]) + 1e-4).all()
        np.testing.assert_allclose(high - low, [length, width, height], atol=0.05)
        assert category == {'bus': 'Bus', 'double_decker': 'Bus', 'truck': 'Truck'}.get(kind, 'Car')


def test_pedestrians_stay_in_their_boxes():
    for seed in range(20):
        category, _, (length, width, height), build = make_pedestrian(np.random.default_rng(seed))
        low, high = build().vertices.min(0), build().vertices.max(0)
        assert category == 'Pedestrian'
        assert (low >= np.array([-length / 2, -width / 2, 0]) - 1e-4).all()
        assert (high <= np.array([length / 2, width / 2, height]) + 1e-4).all()
        assert high[2] - low[2] == pytest.approx(height, abs=0.02)


def test_occluded_objects_get_no_returns(rendered):
    """A wall in front of a visible vehicle takes all its returns and its label."""
    town, frame, rig, t = rendered
    box = next(
        b for b in frame.boxes if b.category != 'Pedestrian' and 8 < math.hypot(*b.center[:2]) < 30
    )
    pose = frame.lidar_pose
    x, y, _ = pose[:3, :3] @ (np.array(box.center) * 0.25) + pose[:3, 3]
    yaw = math.atan2(pose[1, 0], pose[0, 0]) + math.atan2(box.center[1], box.center[0])
    reach = math.hypot(*box.center[:2])
    half = reach  # of the wall, at a quarter of the distance: hides everything within ±75°
    wall = frustum((-0.05, 0.05), (-half, half), (0, 6), Material.FACADE, (0.5, 0.4, 0.3)).placed(
        x, y, yaw
    )
    hidden = RayScene(merge([town.mesh(t), wall]))
    scan = take_scan(town, hidden, pose, rig.lidar, np.random.default_rng(0))
    assert (frame.scan.instance == box.instance).sum() >= layout.MIN_RETURNS
    assert (scan.instance == box.instance).sum() == 0
    assert box.instance not in [b.instance for b in layout.label_boxes(town, t, scan, pose)]


def test_ambient_light_knows_shadows():
    """Road in the sun is brighter in the near-infrared ambient channel than road in the shadow."""
    town = next(
        t
        for t in (Town(0, s, 3.0) for s in range(20))
        if t.weather.clouds < 0.3 and not t.weather.dusk
    )
    rig = layout.make_rig((16, 32), (64, 1024), 1)
    frame = layout.render_frame(town, 0, rig)
    scan, pose = frame.scan, frame.lidar_pose
    place = scan.xyz @ pose[:3, :3].T + pose[:3, 3]
    road = (scan.instance == 0) & (np.abs(place[..., 2]) < 0.05) & (scan.range_mm < 20000)
    start = place[road] + (0, 0, 0.08)
    shadow = frame.scene.blocked(start, np.tile(town.weather.sun_dir, (len(start), 1)))
    assert min(shadow.sum(), (~shadow).sum()) > 50
    ambient = scan.ambient[road]
    assert ambient[~shadow].mean() > 1.8 * ambient[shadow].mean()


def test_traffic_moves_as_it_says_and_stays_out_of_the_ego_car():
    town = Town(4, 1, 6.0)
    moving = [u for u in town.road_users if u.speed]
    assert len(moving) >= 5
    for user in moving:
        step = user.position(2.5) - user.position(2.0)
        np.testing.assert_allclose(
            step,
            [0.5 * user.speed * math.cos(user.yaw), 0.5 * user.speed * math.sin(user.yaw), 0],
            atol=1e-9,
        )
    for t in np.linspace(0, 6, 25):
        x, y, _ = town.ego.pose(t)
        gaps = [math.hypot(*(u.position(t)[:2] - (x, y))) for u in town.road_users]
        assert min(gaps) > 1.1


@pytest.mark.parametrize('sequence', [0, 5])
def test_vehicles_do_not_overlap(sequence):
    users = [u for u in Town(0, sequence, 6.0).road_users if u.category != 'Pedestrian']
    assert len(users) > 20
    for t in (0.0, 3.0, 6.0):
        places = np.array([u.position(t)[:2] for u in users])
        rects = [
            (tuple(map(float, p)), u.size[:2], math.degrees(u.yaw)) for u, p in zip(users, places)
        ]
        near = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) < 12
        for i, j in zip(*np.nonzero(np.triu(near, 1))):
            _, shared = cv2.rotatedRectangleIntersection(rects[i], rects[j])
            area = 0 if shared is None else cv2.contourArea(cv2.convexHull(shared))
            assert area < 0.01, (users[i].kind, places[i], users[j].kind, places[j], t)


def test_towns_differ_by_seed_and_sequence_and_repeat():
    one, same, other = Town(1, 0, 2.0), Town(1, 0, 2.0), Town(1, 1, 2.0)
    np.testing.assert_array_equal(one.mesh(1.0).vertices, same.mesh(1.0).vertices)
    assert one.mesh(1.0).vertices.shape != other.mesh(1.0).vertices.shape


# ------------------------------------------------------------------ the files
def test_destaggered_columns_share_one_azimuth():
    lidar = SpinningLidar(8, 256)
    assert lidar.shift.tolist() == [6, 4, 2, 0, 6, 4, 2, 0]
    rays = lidar.directions()
    straight = np.stack([np.roll(row, s, 0) for row, s in zip(rays, lidar.shift)])
    right = np.arctan2(-straight[..., 1], straight[..., 0])
    expected = ((np.arange(256) + 0.5) / 128 - 1) * np.pi
    np.testing.assert_allclose(right, np.tile(expected, (8, 1)), atol=1e-5)
    up = np.rad2deg(np.arcsin(straight[:, 0, 2]))
    np.testing.assert_allclose(
        up, [19.6875, 14.0625, 8.4375, 2.8125, -2.8125, -8.4375, -14.0625, -19.6875], atol=1e-4
    )


def test_layout_of_the_folder(folder):
    stems = [f'1000{i:06d}' for i in range(10)]
    for kind, suffix in (
        ('image', '.png'),
        ('ouster_points', '.bin'),
        ('labels', '.txt'),
        ('oxts', '.txt'),
    ):
        assert sorted(p.name for p in (folder / kind / 'data').iterdir()) == [
            s + suffix for s in stems
        ]
        assert len((folder / kind / 'timestamps.txt').read_text().splitlines()) == 10
    image = cv2.imread(str(folder / 'image/data/1000000003.png'), cv2.IMREAD_UNCHANGED)
    assert image.shape == (32, 64, 3) and image.dtype == np.uint8
    os1 = json.loads((folder / 'metadata/os1.json').read_text())
    assert os1['data_format'] == {
        'pixels_per_column': 16,
        'columns_per_frame': 256,
        'pixel_shift_by_row': [6, 4, 2, 0] * 4,
    }
    assert len(os1['beam_altitude_angles']) == 16 and os1['beam_altitude_angles'][0] == 21.09375
    lidar2cam = json.loads((folder / 'metadata/calibration.json').read_text())['lidar2cam']
    np.testing.assert_allclose(
        lidar2cam, [[1, 0, 0, -0.05], [0, 1, 0, 0], [0, 0, 1, -0.15], [0, 0, 0, 1]], atol=1e-12
    )
    for line in (folder / 'oxts/data').iterdir():
        assert np.isfinite([float(v) for v in line.read_text().split()]).all()


def test_split_holds_out_whole_sequences(folder):
    split = pickle.loads((folder / 'metadata/dataset_ext_indices.pkl').read_bytes())
    assert split['train_indices'].dtype == split['test_indices'].dtype == np.int64
    assert split['train_indices'].tolist() == list(range(8)) and split['test_indices'].tolist() == [
        8,
        9,
    ]
    names = json.loads((folder / 'metadata/sequences.json').read_text())
    assert list(names) == [f'1000{i:06d}' for i in range(10)]
    train = {names[f'1000{i:06d}'] for i in split['train_indices']}
    assert len(train) == 4 and train.isdisjoint(
        names[f'1000{i:06d}'] for i in split['test_indices']
    )


def test_scan_file(folder):
    raw = np.fromfile(folder / 'ouster_points/data/1000000004.bin', '<f4').reshape(16, 256, 9)
    echo = raw[..., 8] > 0
    assert 0.3 < echo.mean() < 0.99
    assert not raw[~echo][:, [0, 1, 2, 3, 5, 7]].any()
    np.testing.assert_allclose(
        np.linalg.norm(raw[echo][:, :3], axis=1), raw[echo][:, 8] / 1000, rtol=1e-5
    )
    assert (raw[..., 6] == np.arange(16)[:, None]).all()
    assert (raw[echo][:, [3, 5, 7]] >= 1).all() and raw[..., 5].max() <= 255
    assert (raw[..., [3, 5, 7, 8]] == np.round(raw[..., [3, 5, 7, 8]])).all()


def test_labels_equal_the_scene(folder):
    """Frame 3 is the second of sequence 1 (two frames a sequence, half a second apart)."""
    town = Town(5, 1, 1.0)
    x, y, yaw = town.ego.pose(0.5)
    frame = layout.render_frame(town, 1, layout.make_rig((32, 64), (16, 256), 1))
    lines = [
        line.split() for line in (folder / 'labels/data/1000000003.txt').read_text().splitlines()
    ]
    assert len(lines) == len(frame.boxes) >= 3
    users = {u.instance: u for u in town.road_users}
    for tokens, box in zip(lines, frame.boxes):
        assert tokens[0] in ('Car', 'Bus', 'Truck', 'Pedestrian') and len(tokens) == 8
        h, w, length, bx, by, bz, heading = map(float, tokens[1:])
        user = users[box.instance]
        assert (tokens[0], length, w, h) == (user.category, *user.size)
        px, py, pz = user.position(0.5)
        ahead = math.cos(yaw) * (px - x) + math.sin(yaw) * (py - y)
        left = math.cos(yaw) * (py - y) - math.sin(yaw) * (px - x)
        np.testing.assert_allclose([bx, by, bz], [ahead, left, pz + h / 2 - 1.8], atol=1e-4)
        assert abs(math.remainder(heading - (user.yaw - yaw), math.tau)) < 1e-4


def test_files_hold_what_was_rendered(folder):
    frame = layout.render_frame(Town(5, 2, 1.0), 0, layout.make_rig((32, 64), (16, 256), 1))
    stored = cv2.imread(str(folder / 'image/data/1000000004.png'))[..., ::-1]
    np.testing.assert_array_equal(stored, layout.native(frame.image))
    raw = np.fromfile(folder / 'ouster_points/data/1000000004.bin', '<f4').reshape(-1, 9)
    np.testing.assert_array_equal(raw, layout.scan_records(frame.scan))


# ------------------------------------------------------------------ writing
def test_workers_change_nothing_and_broken_runs_are_finished(folder, tmp_path):
    """Two processes write the same bytes; a damaged folder is repaired to the same bytes."""
    other = tmp_path / 'two'
    report = layout.write(other, 10, seed=5, sequences=5, workers=2, **SMALL)
    assert (report['written'], report['train'], report['test']) == (10, 8, 2)
    assert files(other) == files(folder)
    (other / 'labels/data/1000000002.txt').unlink()
    scan = other / 'ouster_points/data/1000000007.bin'
    scan.write_bytes(scan.read_bytes()[:100])
    (other / 'metadata/dataset_ext_indices.pkl').unlink()
    (other / 'image/data/.1000000009.png.123.tmp').write_bytes(b'half a pic')
    report = layout.write(other, 10, seed=5, sequences=5, **SMALL)
    assert report['written'] == 2
    assert files(other) == files(folder)
    assert layout.write(other, 10, seed=5, sequences=5, **SMALL)['written'] == 0


def test_other_settings_are_refused_and_nothing_is_lost(folder):
    before = files(folder)
    with pytest.raises(FileExistsError, match=r"there \{'seed': 5\}, asked \{'seed': 6\}"):
        layout.write(folder, 10, seed=6, sequences=5, **SMALL)
    assert files(folder) == before


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').write_text('precious')
    with pytest.raises(FileExistsError, match='not a toytown folder'):
        layout.write(tmp_path, 4, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(frames=1), 'at least 2 frames'),
        (dict(sequences=9), 'between 2 and the number of frames'),
        (dict(image_size=(64, 64)), 'twice as wide as high'),
        (dict(scan_size=(1, 256)), 'at least 2 beams'),
    ],
)
def test_impossible_settings(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        layout.write(tmp_path / 'new', **{'frames': 4, **SMALL, **change})
    assert not (tmp_path / 'new').exists()


def test_command_line(tmp_path):
    tool = Path(__file__).resolve().parents[2] / 'tools' / 'create_data.py'
    base = [
        sys.executable,
        str(tool),
        'toytown',
        '--layout',
        'dur360bev',
        '--out-dir',
        str(tmp_path / 'd'),
        '--frames',
        '2',
        '--image-size',
        '16',
        '32',
        '--scan-size',
        '4',
        '64',
        '--workers',
        '1',
    ]
    done = subprocess.run([*base, '--seed', '1'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '2 frames in 2 sequences (1 train, 1 test), 2 written now' in done.stdout
    failed = subprocess.run([*base, '--seed', '2'], capture_output=True, text=True)
    assert failed.returncode != 0 and 'Traceback' not in failed.stderr
    assert failed.stderr.strip().count('\n') == 0 and 'started with other settings' in failed.stderr


def test_a_folder_without_any_frame_may_be_begun_with_other_settings(tmp_path):
    settings = [folders.make_settings('dur360bev', 2, seed, (16, 32), (4, 64), 2, 1)
                for seed in (1, 2)]
    folders._check_run_dir(tmp_path, settings[0])
    folders._check_run_dir(tmp_path, settings[1])         # nothing was rendered with the first
    assert json.loads((tmp_path / 'metadata' / 'toytown.json').read_text())['seed'] == 2
    (tmp_path / 'image.png').touch()
    with pytest.raises(FileExistsError, match="there {'seed': 2}, asked {'seed': 1}"):
        folders._check_run_dir(tmp_path, settings[0])
