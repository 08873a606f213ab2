"""NuScenes' maps: toytown's in the devkit, masks against the devkit's, the map in the images."""
import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmdet3d.registry import TRANSFORMS

pytest.importorskip('trimesh')
pytest.importorskip('embreex')
map_api = pytest.importorskip('nuscenes.map_expansion.map_api')

from data_converter.toytown import nuscenes_layout as layout  # noqa: E402
from data_converter.toytown import street_map  # noqa: E402
from data_converter.toytown.sensors import RayScene, pose_matrix, take_image  # noqa: E402
from mmdet3d_plugin.errors import UserError  # noqa: E402
from mmdet3d_plugin.geometry import BEVGrid, rigid  # noqa: E402
from mmdet3d_plugin.geometry.map_raster import rasterize_map  # noqa: E402
from mmdet3d_plugin.structures import fields, vector_map  # noqa: E402

LOCATIONS = ('singapore-queenstown', 'boston-seaport')
GRID = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5, rows='+x', cols='+y')
NAMES = ('drivable_area', 'ped_crossing', 'walkway', 'stop_line', 'carpark_area', 'road_divider',
         'lane_divider')
AREAS = 5  # the others are lines
SETTINGS = dict(seed=3, frames=12, sequences=4)


@pytest.fixture(scope='module')
def towns():
    """Four towns, two at each location."""
    made = [layout.town_of(SETTINGS['seed'], n, 3) for n in range(SETTINGS['sequences'])]
    assert [layout.location(town) for town in made].count(LOCATIONS[0]) == 2
    return made


@pytest.fixture(scope='module')
def root(tmp_path_factory, towns):
    """Their maps, without sensors."""
    root = tmp_path_factory.mktemp('maps')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, 'town_of', lambda seed, sequence, length: towns[sequence])
        layout.write_maps(root / 'maps', SETTINGS)
    return root


def apart(found, expected):
    """Cells of one mask that are not within a cell of the other's."""
    found, expected = found.astype(np.uint8), expected.astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    return np.stack([(a > cv2.dilate(b, kernel)) | (b > cv2.dilate(a, kernel))
                     for a, b in zip(found, expected)])


def town_at(towns, location):
    return next(town for town in towns if layout.location(town) == location)


@pytest.fixture(autouse=True)
def _devkit_under_shapely_2(monkeypatch):
    """The devkit iterates over multi-lines, which shapely 2 forbids; nothing else is changed."""
    explorer = map_api.NuScenesMapExplorer
    draw = explorer.mask_for_lines

    def each(lines, mask):
        for line in getattr(lines, 'geoms', [lines]):
            draw(line, mask)
        return mask

    monkeypatch.setattr(explorer, 'mask_for_lines', staticmethod(each))


def devkit_mask(devkit, frame2map, size=100.0):
    """(7, x, y) mask of the devkit, called as BEVFusion does."""
    ahead = frame2map[:3, :3] @ [1, 0, 0]
    degrees = np.arctan2(ahead[1], ahead[0]) / np.pi * 180
    patch = (*frame2map[:2, 3], size, size)
    return devkit.get_map_mask(patch, degrees, list(NAMES), (200, 200)).transpose(0, 2, 1)


def pose(x, y, yaw):
    return rigid.rigid(rigid.yaw_matrix(yaw)[:3, :3], (x, y, 1.8))


# Bit by bit -----------------------------------------------------------------------------------


@pytest.mark.parametrize('location', LOCATIONS)
def test_devkit_mode_is_the_devkits_mask(root, towns, location):
    devkit, layers = map_api.NuScenesMap(str(root), location), vector_map.load_map(root, location)
    classes, rng = [[layers[name]] for name in NAMES], np.random.default_rng(0)
    town = town_at(towns, location)
    drawn = np.zeros(len(NAMES), bool)
    for n in range(30):
        x, y = layout.to_world(town)[:2, :2] @ rng.uniform(-130, 130, 2)
        x, y = np.array([x, y]) + rigid.apply(layout.to_world(town), [[0., 0, 0]])[0, :2]
        frame2map = pose(x, y, n * np.pi / 4 if n < 8 else rng.uniform(-np.pi, np.pi))
        scale = 1.0 if n % 3 else rng.uniform(0.9, 1.1)
        expected = devkit_mask(devkit, frame2map, 100 / scale)
        found = rasterize_map(classes, frame2map, BEVGrid(**GRID), 'devkit',
                              bev_aug=np.diag([scale, scale, scale, 1]))
        np.testing.assert_array_equal(found, expected)
        drawn |= found.any((1, 2))
    assert drawn.all()


def scribble(rng):
    """A map of areas with holes (later ones erase), bow ties, and lines that come back."""
    rows = {name: [] for name in street_map.LAYERS}
    rows |= dict(version='1.3', canvas_edge=[400, 400], arcline_path_3={}, connectivity={})

    def add(layer, **values):
        rows[layer].append(dict(token=f'{layer}{len(rows[layer])}', **values))
        return rows[layer][-1]['token']

    def nodes(points):
        return [add('node', x=float(x), y=float(y)) for x, y in points]

    def polygon(middle, radius):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 8))
        star = np.stack([np.cos(angle), np.sin(angle)], -1) * radius
        holes = [star * 0.5] if rng.random() < 0.5 else []
        return add('polygon', exterior_node_tokens=nodes(star + middle),
                   holes=[dict(node_tokens=nodes(hole + middle)) for hole in holes])

    for _ in range(12):
        where = rng.uniform(100, 300, (5, 2))
        add('drivable_area', polygon_tokens=[polygon(at, 25) for at in where[:2]])
        add('walkway', polygon_token=polygon(where[2], 20))
        for layer in ('ped_crossing', 'carpark_area'):
            corners = nodes(where[3] + rng.uniform(-30, 30, (4, 2)))  # many cross themselves
            add(layer, polygon_token=add('polygon', exterior_node_tokens=corners, holes=[]))
        for layer in ('road_divider', 'lane_divider'):
            zigzag = nodes(rng.uniform(100, 300, (6, 2)))
            add(layer, line_token=add('line', node_tokens=zigzag))
    return rows


def test_devkit_mode_on_a_scribble(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / 'maps' / 'expansion').mkdir(parents=True)
    path = Path(vector_map.map_path(str(tmp_path), LOCATIONS[0]))
    path.write_text(json.dumps(scribble(rng)))
    devkit = map_api.NuScenesMap(str(tmp_path), LOCATIONS[0])
    layers = vector_map.load_map(tmp_path, LOCATIONS[0])
    assert 0 < (~layers['ped_crossing'].valid).sum() < 12
    classes = [[layers[name]] for name in NAMES]
    for _ in range(40):
        frame2map = pose(*rng.uniform(130, 270, 2), rng.uniform(-np.pi, np.pi))
        np.testing.assert_array_equal(
            rasterize_map(classes, frame2map, BEVGrid(**GRID), 'devkit'),
            devkit_mask(devkit, frame2map))


def test_devkit_mode_augmented_as_bevfusion(root, towns):
    """Its order: turn and scale, mask without the scale, then flips of mask and matrix."""
    rng = np.random.default_rng(2)
    devkit = map_api.NuScenesMap(str(root), LOCATIONS[1])
    layers = vector_map.load_map(root, LOCATIONS[1])
    town = town_at(towns, LOCATIONS[1])
    for across, along in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        lidar2global = layout.to_world(town) @ pose_matrix(8, 0, 0, rng.uniform(-np.pi, np.pi))
        turn = rigid.yaw_matrix(rng.uniform(-np.pi / 4, np.pi / 4))
        turn[:2, 3] = rng.normal(0, 0.5, 2)
        scaled = np.diag([1.07, 1.07, 1.07, 1]) @ turn
        expected = devkit_mask(devkit, lidar2global @ np.linalg.inv(turn))[:, ::along, ::across]
        found = rasterize_map([[layers[name]] for name in NAMES], lidar2global, BEVGrid(**GRID),
                              'devkit', bev_aug=np.diag([along, across, 1, 1]) @ scaled,
                              scale_aware=False)
        # poses agree to rounding, not to the bit: the end of a line may move to the next cell
        assert (found != expected)[:AREAS].mean() < 1e-4 and not apart(found, expected).any()


@pytest.mark.slow
def test_speed(tmp_path, capsys):
    """A map as dense as a city: 20 towns, 6000 areas, 3400 lines; one run for both."""
    town = layout.town_of(3, 0, 3)
    low, high = street_map.window(town)
    step, places = np.ceil(high - low) + 1, [(row, col) for row in range(4) for col in range(5)]
    content = street_map.expansion((3228.6, 3687.1), [
        (f'{row}-{col}', town, pose_matrix(*(step * (col, row) - low), 0)) for row, col in places])
    path = Path(vector_map.map_path(str(tmp_path), LOCATIONS[0]))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    start = time.process_time()
    devkit = map_api.NuScenesMap(str(tmp_path), LOCATIONS[0])
    loaded = time.process_time()
    layers = vector_map.load_map(tmp_path, LOCATIONS[0])
    for layer in layers.values():
        layer.prepare()
    loading = loaded - start, time.process_time() - loaded
    rng, spent, frames = np.random.default_rng(0), np.zeros(3), 20
    for _ in range(frames):
        frame2map = pose(*rng.uniform(60, step * (5, 4) - 60), rng.uniform(-np.pi, np.pi))
        marks = [time.process_time()]
        masks = [devkit_mask(devkit, frame2map)]
        marks.append(time.process_time())
        for method in ('devkit', 'exact'):
            masks.append(rasterize_map([[layers[name]] for name in NAMES], frame2map,
                                       BEVGrid(**GRID), method))
            marks.append(time.process_time())
        spent += np.diff(marks)
        np.testing.assert_array_equal(masks[1], masks[0])
    milliseconds = spent / frames * 1000
    with capsys.disabled():
        print(f'\n{len(content["polygon"])} areas, {len(content["line"])} lines, '
              f'{path.stat().st_size / 1e6:.1f} MB; loading: devkit {loading[0]:.2f} s, ours '
              f'{loading[1]:.2f} s; a frame: devkit {milliseconds[0]:.1f} ms, ours '
              f'method=devkit {milliseconds[1]:.1f} ms ({spent[0] / spent[1]:.1f} times faster), '
              f'method=exact {milliseconds[2]:.1f} ms ({spent[0] / spent[2]:.1f} times faster)')
    assert spent[0] > 5 * spent[1] and spent[0] > 5 * spent[2]


# Toytown's maps -------------------------------------------------------------------------------


@pytest.mark.parametrize('side', [1, -1])
def test_towns_have_places_of_their_own(side):
    """Ten towns whose ways are as long as can be: 9 m/s, straight on or around a corner."""
    from shapely import box
    from shapely.affinity import affine_transform

    trip, outlines = layout.LONGEST * 0.5 * 9.0, []
    for n in range(10):
        way = np.array([(0.0, 0.2), (trip, -0.2)] if n % 2 else [(0.0, 0.0), (trip / 2, trip / 2)])
        town = SimpleNamespace(sequence=n, way=way, streets=SimpleNamespace(side=side))
        matrix = layout.to_world(town)
        outlines.append(affine_transform(box(*street_map.window(town).ravel()), [
            *matrix[0, :2], *matrix[1, :2], *matrix[:2, 3]]))
    edge = layout.MAPS[layout.location(town)][1]
    assert all(box(0, 0, *edge).contains(outline) for outline in outlines)
    assert all(not a.intersects(b) for n, a in enumerate(outlines) for b in outlines[:n])


def test_devkits_queries(root, towns):
    for town in towns:
        devkit = map_api.NuScenesMap(str(root), layout.location(town))
        x, y, _ = rigid.apply(layout.to_world(town), [[*town.ego.pose(0.0)[:2], 0.0]])[0]
        there = devkit.layers_on_point(x, y)
        assert there['drivable_area'] and there['road_segment'] and not there['walkway']
        for name in devkit.non_geometric_polygon_layers:
            for row in getattr(devkit, name):
                for polygon in row.get('polygon_tokens') or [row['polygon_token']]:
                    shape = devkit.extract_polygon(polygon)
                    assert shape.is_valid and shape.area > 0
        assert devkit.extract_polygon(devkit.drivable_area[0]['polygon_tokens'][0]).interiors
        found = devkit.get_records_in_patch((x - 50, y - 50, x + 50, y + 50))
        assert all(found[name] for name in NAMES) and not found['traffic_light']
        lane = devkit.get_closest_lane(x, y, radius=60)
        away = [after for way in devkit.get_outgoing_lane_ids(lane)
                for after in devkit.get_outgoing_lane_ids(way)]
        assert lane not in away and len(away) <= 3
        for name, path in devkit.arcline_path_3.items():
            end = devkit.discretize_lanes([name], 0.5)[name][-1]
            np.testing.assert_allclose(end[:2], path[0]['end_pose'][:2], atol=1e-3)
            for after in devkit.get_outgoing_lane_ids(name):
                np.testing.assert_allclose(devkit.arcline_path_3[after][0]['start_pose'],
                                           path[0]['end_pose'], atol=1e-9)
        for stop in devkit.stop_line:
            assert all(cue['token'] in stop['ped_crossing_tokens'] for cue in stop['cue'])


# One world for map and images ---------------------------------------------------------------


def test_the_zebra_of_the_map_is_painted_in_the_image(root, towns):
    """Stripes of half a metre, white about whole metres from the middle of the street."""
    import shapely

    size, checked = (270, 480), 0
    grid = dict(GRID, rows='-x', cols='-y')
    transform = TRANSFORMS.build(dict(type='RasterizeMap', data_root=str(root), grid=grid))
    for town, name, t in itertools.product(towns, ('CAM_FRONT', 'CAM_BACK'), (0.0, 1.0)):
        frame, car = frame_at(town, t), layout.car_pose(town, t)
        seg = transform.transform(frame)[fields.GT_BEV]['seg']
        crossing = fields_index('ped_crossing')
        camera, rays = car @ layout.RIG[name], layout.rays(name, size)
        scene, image = RayScene(town.mesh(t)), None
        layers = vector_map.load_map(root, frame['location'])
        for zebra in layers['ped_crossing'].shapes:
            corners = rigid.apply(np.linalg.inv(layout.to_world(town)), np.pad(
                shapely.get_coordinates(zebra), ((0, 0), (0, 1))))[:4, :2]
            long = np.ptp(corners, 0).argmax()
            stripes = np.tile(corners.mean(0), (17, 1))
            stripes[:, long] += np.arange(-4, 4.5, 0.5)
            places = np.pad(stripes, ((0, 0), (0, 1)))
            local = rigid.apply(np.linalg.inv(camera), places)
            pixel = local @ layout.intrinsics(name, size).T
            pixel = np.rint(pixel[:, :2] / pixel[:, 2:]).astype(int)
            seen = (local[:, 2] > 4) & (local[:, 2] < 25) & (pixel >= 0).all(1) & (
                pixel < size[::-1]).all(1)
            way = places - camera[:3, 3]
            reach = np.linalg.norm(way, axis=1)
            hit, *_ = scene.cast(camera[:3, 3], way / reach[:, None])
            seen &= np.abs(hit - reach) < 0.05
            if long != 1 or seen.sum() < 7:  # of the street that the car is on
                continue
            if image is None:
                image = take_image(town, scene, camera, rays).mean(-1)
            brightness = image[pixel[:, 1].clip(0, size[0] - 1), pixel[:, 0].clip(0, size[1] - 1)]
            contrast = np.diff(brightness) * (-1) ** np.arange(1, 17)
            assert (contrast[seen[1:] & seen[:-1]] > 0.1).mean() > 0.8  # but for edges of shadows
            cells = BEVGrid(**grid).to_pixel(
                rigid.apply(np.linalg.inv(car), places)[:, :2]).astype(int)
            assert seg[(crossing, *cells[seen].T)].all()
            checked += 1
    assert checked >= 2


def fields_index(name):
    return vector_map.CLASSES.index(name)


def test_what_is_on_the_map_is_built(root, towns):
    """Kerbs, pavements and asphalt under the cells' centres, around the car."""
    from data_converter.toytown.meshes import Material

    town = towns[0]
    car = layout.car_pose(town, 1.0)
    frame = dict(token='', location=layout.location(town), ego2global=layout.to_world(town) @ car)
    seg = TRANSFORMS.build(dict(type='RasterizeMap', data_root=str(root), grid=GRID)).transform(
        frame)[fields.GT_BEV]['seg'].reshape(6, -1) > 0
    places = np.pad(BEVGrid(**GRID).centers_2d().numpy().reshape(-1, 2), ((0, 0), (0, 1)))
    places = rigid.apply(car, places)
    scene, material = RayScene(town.scenery), np.full(len(places), -1)
    for n, place in enumerate(places + (0, 0, 0.4)):  # from knee height, below cars and roofs
        if n % 7 == 0:
            face = scene.cast(place, np.array([[0.0, 0.0, -1.0]]))[1][0]
            material[n] = town.scenery.material[face]
    ground = dict(drivable_area=(Material.ROAD, Material.CAR_PARK), walkway=(Material.PAVEMENT,))
    for name, kinds in ground.items():
        found = material[seg[fields_index(name)] & (material >= 0)]
        assert len(found) > 300 and np.isin(found, kinds).mean() > 0.97
        built = np.isin(material, kinds)
        assert (seg[fields_index(name)] | seg[fields_index('carpark_area')])[built].all()


# The transform --------------------------------------------------------------------------------


def frame_at(town, t=0.0, **extra):
    pose = layout.to_world(town) @ layout.car_pose(town, t)
    return dict(token='t', location=layout.location(town), ego2global=pose.tolist(), **extra)


def test_the_pose_is_that_of_the_scanner(root, towns):
    """``ego2global`` after ``lidar2ego``, which is the identity where a frame does not say it."""
    town = towns[1]
    transform = TRANSFORMS.build(dict(type='RasterizeMap', data_root=str(root), grid=GRID,
                                      classes=('divider', 'lane_divider', 'lane')))
    LiDAR = layout.RIG['LIDAR_TOP']
    mounted = frame_at(town, lidar_points=dict(lidar2ego=LiDAR.tolist()))
    moved = dict(frame_at(town), ego2global=(np.array(mounted['ego2global']) @ LiDAR).tolist())
    masks = [transform.transform(frame)[fields.GT_BEV]['seg'] for frame in (mounted, moved)]
    np.testing.assert_array_equal(*masks)
    plain = transform.transform(frame_at(town))[fields.GT_BEV]['seg']
    assert (masks[0] != plain).any()
    assert (masks[0][0] >= masks[0][1]).all() and masks[0][0].sum() > masks[0][1].sum() > 0
    assert moved[fields.BEV_GRID] == BEVGrid(**GRID).asdict()


def test_new_data_has_a_grid_and_no_truth(root):
    """A frame of no known place is predicted; it cannot be trained on."""
    transform = TRANSFORMS.build(dict(type='RasterizeMap', data_root=str(root), grid=GRID))
    assert transform.transform(dict(token='t')) == dict(
        token='t', bev_grid=BEVGrid(**GRID).asdict(), map_classes=vector_map.CLASSES)
    with pytest.raises(UserError, match='frame t has no location; convert nuScenes with'):
        transform.transform(dict(token='t', ann_info={}))


def test_random_yaw_turns_the_map(root, towns):
    town = towns[1]
    transform = TRANSFORMS.build(dict(type='RasterizeMap', data_root=str(root), grid=GRID))
    plain = transform.transform(frame_at(town))[fields.GT_BEV]['seg']
    turned = transform.transform(frame_at(town, bev_aug=rigid.yaw_matrix(np.pi)))[fields.GT_BEV]
    np.testing.assert_array_equal(turned['seg'], plain[:, ::-1, ::-1])


def test_preloaded_maps_are_not_read_again(root, towns, monkeypatch):
    built = TRANSFORMS.build(dict(type='RasterizeMap', data_root=str(root), grid=GRID,
                                  preload=LOCATIONS))
    monkeypatch.setattr(json, 'load', None)
    for town in towns:
        built.transform(frame_at(town))


@pytest.mark.parametrize('options, message', [
    (dict(classes=['pedestrian_crossing']), "unknown class 'pedestrian_crossing'"),
    (dict(classes=['walkways']), "did you mean 'walkway'"),
    (dict(line_width=0), 'line_width: expected metres > 0, got 0'),
    (dict(preload=['atlantis']), r'atlantis\.json: no such map.*nuscenes\.org'),
])
def test_wrong_options(root, options, message):
    with pytest.raises(UserError, match=message):
        TRANSFORMS.build(dict(type='RasterizeMap', data_root=str(root), grid=GRID, **options))


@pytest.mark.parametrize('change, message', [
    (dict(ego2global=None), 'frame t has no ego2global'),
    (dict(gt_bev={}), 'has gt_bev already; keep one of RasterizeBEV and RasterizeMap'),
    (dict(location='boston-seaprot'), "did you mean 'boston-seaport.json'"),
])
def test_wrong_frames(root, towns, change, message):
    frame = frame_at(towns[1]) | change
    frame = {key: value for key, value in frame.items() if value is not None}
    transform = TRANSFORMS.build(dict(type='RasterizeMap', data_root=str(root), grid=GRID))
    with pytest.raises(UserError, match=message):
        transform.transform(frame)


@pytest.mark.parametrize('change, message', [
    (lambda m: m.pop('version'), 'version 1.0, expected 1.3 or later; download'),
    (lambda m: m.update(version='1.2'), 'version 1.2, expected 1.3 or later'),
    (lambda m: m.update(version='new'), 'version new, expected 1.3 or later'),
    (lambda m: m.pop('walkway'), "malformed map: no 'walkway'; download"),
    (lambda m: m['node'].pop(0), r"malformed map: no '\w{32}'"),
    (lambda m: m['node'][0].update(x=float('nan')), 'a node has no place within 1e\\+06 m'),
    (lambda m: m['polygon'][0].update(exterior_node_tokens=[m['node'][0]['token']]),
     'malformed map: '),
    (lambda m: m.update(node=['n']), 'malformed map: '),
    (lambda m: m.update(line=5), 'malformed map: '),
])
def test_wrong_maps(root, tmp_path, change, message):
    content = json.loads(Path(vector_map.map_path(root, LOCATIONS[0])).read_text())
    change(content)
    path = Path(vector_map.map_path(tmp_path, LOCATIONS[0]))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        vector_map.load_map(tmp_path, LOCATIONS[0])
    assert str(path) in str(error.value)


def test_a_cut_map(tmp_path):
    path = Path(vector_map.map_path(tmp_path, LOCATIONS[0]))
    path.parent.mkdir(parents=True)
    path.write_text('{"version": "1.3", "node": [')
    with pytest.raises(UserError, match='unreadable map: .*download'):
        vector_map.load_map(tmp_path, LOCATIONS[0])


def test_newer_versions_load(root, tmp_path):
    content = json.loads(Path(vector_map.map_path(root, LOCATIONS[0])).read_text())
    path = Path(vector_map.map_path(tmp_path, LOCATIONS[0]))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(dict(content, version='1.10')))
    assert len(vector_map.load_map(tmp_path, LOCATIONS[0])['walkway'].shapes) > 20
