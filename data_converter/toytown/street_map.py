"""The map of a town, as nuScenes' map expansion describes one: the same geometry that is ray-cast.

Around the ego car's way, within ``REACH``:

* drivable_area: asphalt from kerb to kerb, with the blocks as holes, and car parks
* road_segment: junctions, and streets between them; road_block and lane: one direction of a street,
  with and without its parking lane; lane_connector: ways across a junction
* ped_crossing: zebras; stop_line: the painted line and the place of the first vehicle before it
* walkway: pavements round the blocks; carpark_area: parking lanes and car parks
* road_divider: the line between the directions; lane_divider: the line of a parking lane
"""

import hashlib
from typing import List, Sequence, Tuple

import numpy as np

from .busy_town import BusyTown
from .shading import MARGIN, PLAIN, STOP_LINE, ZEBRA
from .world import HALF_STREET, LANE, PAVEMENT

VERSION = '1.3'
LAYERS = ('polygon', 'line', 'node', 'drivable_area', 'road_segment', 'road_block', 'lane',
          'ped_crossing', 'walkway', 'stop_line', 'carpark_area', 'road_divider', 'lane_divider',
          'traffic_light', 'lane_connector')
REACH = 100.0
"""Metres around the ego car's way that the map covers; a BEV map of 100 m needs 80."""
FIRST_VEHICLE = 2.0
"""Depth of the place before a stop line, metres."""


def token(*words: object) -> str:
    """32 hexadecimal digits that name a record."""
    return hashlib.md5('/'.join(map(str, words)).encode(), usedforsecurity=False).hexdigest()


def window(town: BusyTown) -> np.ndarray:
    """(2, 2) float64 lower and upper x, y of the map in the town's frame, metres."""
    return np.stack([town.way.min(0) - REACH, town.way.max(0) + REACH])


def expansion(canvas_edge: Sequence[float], towns: List[Tuple[str, BusyTown, np.ndarray]]) -> dict:
    """A map with some towns, as its JSON file has it.

    Args:
        canvas_edge: width and height of the map, metres.
        towns: [(name, :class:`BusyTown`, (4, 4) town to world), ...].
    """
    rows = {layer: [] for layer in LAYERS}
    rows |= dict(version=VERSION, canvas_edge=list(canvas_edge), arcline_path_3={},
                 connectivity={})
    for name, town, world in towns:
        _TownMap(rows, name, town, world).draw()
    return rows


def image(rows: dict) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a map, one pixel a metre, north up."""
    import cv2

    width, height = np.ceil(rows['canvas_edge']).astype(int)
    nodes = {node['token']: (node['x'], node['y']) for node in rows['node']}
    polygons = {polygon['token']: polygon for polygon in rows['polygon']}
    out = np.zeros((height, width), np.uint8)
    for layer, shade in (('drivable_area', 110), ('walkway', 180), ('ped_crossing', 240)):
        for row in rows[layer]:
            for name in row.get('polygon_tokens') or [row['polygon_token']]:
                rings = [polygons[name]['exterior_node_tokens'], *(
                    hole['node_tokens'] for hole in polygons[name]['holes'])]
                cv2.fillPoly(out, [np.array([nodes[node] for node in ring]).round().astype(np.int32)
                                   for ring in rings], shade)
    return out[::-1, :, None].repeat(3, 2)


class _TownMap:
    """Adds the records of one town."""

    def __init__(self, rows, name, town, world):
        from shapely import box

        self.rows, self.name, self.town, self.world = rows, name, town, world
        self.window = box(*window(town).ravel())
        self.starts, self.ends = {}, {}  # (x, y), dm -> lane that starts or ends there

    # ------------------------------------------------------------------ records
    def add(self, layer, **fields):
        name = token(self.name, layer, len(self.rows[layer]))
        self.rows[layer].append(dict(token=name, **fields))
        return name

    def to_world(self, points):
        return np.asarray(points) @ self.world[:2, :2].T + self.world[:2, 3]

    def nodes(self, points):
        return [self.add('node', x=x, y=y) for x, y in self.to_world(points).tolist()]

    def line(self, points):
        return self.add('line', node_tokens=self.nodes(points))

    def polygons(self, shape):
        """Tokens of what is left of a shape in the window."""
        shape = shape.intersection(self.window)
        parts = [part for part in getattr(shape, 'geoms', [shape]) if part.area > 0]
        return [self.add(
            'polygon', exterior_node_tokens=self.nodes(part.exterior.coords[:-1]),
            holes=[dict(node_tokens=self.nodes(ring.coords[:-1])) for ring in part.interiors])
            for part in parts]

    def areas(self, layer, shape, **fields):
        """Records of a layer, one for each polygon that is left of a shape."""
        return [self.add(layer, polygon_token=polygon, **fields)
                for polygon in self.polygons(shape)]

    # ------------------------------------------------------------------ town
    def draw(self):
        from shapely import box, union_all

        xs, ys, h = self.town.streets.xs, self.town.streets.ys, HALF_STREET
        blocks = [box(x0, y0, x1, y1) for x0, x1 in zip(xs[:-1] + h, xs[1:] - h)
                  for y0, y1 in zip(ys[:-1] + h, ys[1:] - h)]
        car_parks = [box(x0, y0, x1, y1) for (x0, x1), (y0, y1) in self.town.car_parks]
        asphalt = self.window.difference(union_all(blocks))
        self.asphalt = self.add('drivable_area', polygon_tokens=[
            polygon for shape in (asphalt, *car_parks) for polygon in self.polygons(shape)])
        for block in blocks:
            lot = block.buffer(-PAVEMENT, join_style='mitre')
            self.areas('walkway', block.difference(lot))
        for shape in car_parks:
            self.areas('carpark_area', shape, orientation=0.0, road_block_token='')
        for along_x, centers, crossings in ((True, ys, xs), (False, xs, ys)):
            for center in centers:
                for a, b in zip(crossings[:-1] + h, crossings[1:] - h):
                    _Street(self, along_x, center, a, b).draw()
        for x in xs:
            for y in ys:
                self.junction(np.array([x, y]))

    def junction(self, middle):
        from shapely import box

        self.areas('road_segment', box(*middle - HALF_STREET, *middle + HALF_STREET),
                   is_intersection=True, drivable_area_token=self.asphalt)
        side = self.town.streets.side
        for ahead in np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]):
            left = np.array([-ahead[1], ahead[0]])
            start = middle - HALF_STREET * ahead + side * LANE / 2 * left
            for turn in (1, 0, -1):  # to the left, straight on, to the right
                way = turn * left if turn else ahead
                out = np.array([-way[1], way[0]])
                end = middle + HALF_STREET * way + side * LANE / 2 * out
                self.connect(start, end, ahead, way, turn)

    def connect(self, start, end, ahead, way, turn):
        """The connector of two lanes, if both are on the map."""
        before, after = self.ends.get(_key(start)), self.starts.get(_key(end))
        if before is None or after is None:
            return
        if turn:
            corner = start + abs((end - start) @ way) * way
            radius = float(np.linalg.norm(start - corner))
            angle = np.linspace(0, np.pi / 2, 9)[:, None]
            spoke = ahead * np.sin(angle) - way * np.cos(angle)
            edges = [corner + (radius + side * LANE / 2) * spoke for side in (-1, 1)]
            shape, lengths = ('LSL', 'RSR')[turn < 0], [radius * np.pi / 2, 0.0, 0.0]
        else:
            out = np.array([-way[1], way[0]])
            edges = [np.stack([start, end]) + side * LANE / 2 * out for side in (-1, 1)]
            radius, shape, lengths = 1000.0, 'LSL', [0.0, float(np.linalg.norm(end - start)), 0.0]
        connector = self.lane('lane_connector', edges, (start, ahead), (end, way), shape, radius,
                              lengths)
        for one, other in ((before, connector), (connector, after)):
            self.rows['connectivity'][one]['outgoing'].append(other)
            self.rows['connectivity'][other]['incoming'].append(one)

    def lane(self, layer, edges, start, end, shape, radius, lengths, **fields):
        """A lane or connector between two edges, and its centre line; ends are (place, way)."""
        from shapely import Polygon

        (polygon,) = self.polygons(Polygon([*edges[0], *edges[1][::-1]]))
        name = self.add(layer, polygon_token=polygon, **fields)
        poses = [[*self.to_world(place).tolist(),
                  float(np.arctan2(*(self.world[:2, :2] @ way)[::-1]))]
                 for place, way in (start, end)]
        self.rows['arcline_path_3'][name] = [dict(
            start_pose=poses[0], end_pose=poses[1], shape=shape, radius=radius,
            segment_length=lengths)]
        self.rows['connectivity'][name] = dict(incoming=[], outgoing=[])
        return name


def _key(point):
    return tuple(np.round(point * 10).astype(int).tolist())


class _Street:
    """The map of a street between two junctions whose edges are at ``a`` and ``b`` along it."""

    def __init__(self, town_map, along_x, center, a, b):
        self.map, self.along_x, self.center, self.a, self.b = town_map, along_x, center, a, b
        self.free = a + PLAIN, b - PLAIN
        self.left = town_map.town.streets.side * (1 if along_x else -1)

    def at(self, s, d):
        """(x, y) of a place along and across the street."""
        return np.array((s, self.center + d) if self.along_x else (self.center + d, s))

    def strip(self, s, d):
        from shapely import MultiPoint

        return MultiPoint([self.at(*corner) for corner in zip(s, d)]).envelope

    def draw(self):
        segment = self.map.areas(
            'road_segment', self.strip((self.a, self.b), (-HALF_STREET, HALF_STREET)),
            is_intersection=False, drivable_area_token=self.map.asphalt)
        if segment:  # else it is not on the map
            self.paint('road_divider', 0.0, road_segment_token=segment[0])
            for ahead, start, end in ((1, self.a, self.b), (-1, self.b, self.a)):
                self.direction(ahead, start, end, segment[0])

    def direction(self, ahead, start, end, segment):
        """Block, lane and parking lane of a direction; zebra and stop line at its end."""
        def before(place, reach=0.0):
            middle, half = place
            return end - ahead * (middle - half), end - ahead * (middle + half + reach)

        side = ahead * self.left
        lines = [self.map.line([self.at(s, 0.0), self.at(s, side * LANE)]) for s in (start, end)]
        ends = dict(from_edge_line_token=lines[0], to_edge_line_token=lines[1])
        block = [*self.map.areas(
            'road_block', self.strip((start, end), (0.0, side * HALF_STREET)),
            road_segment_token=segment, **ends), ''][0]
        self.lane(ahead, side, start, end, ends)
        self.paint('lane_divider', side * LANE)
        self.map.areas('carpark_area', self.strip(self.free, (side * LANE, side * HALF_STREET)),
                       orientation=0.0, road_block_token=block)
        zebras = self.map.areas(
            'ped_crossing', self.strip(before(ZEBRA), (MARGIN - HALF_STREET, HALF_STREET - MARGIN)),
            road_segment_token=segment)
        self.map.areas(
            'stop_line', self.strip(before(STOP_LINE, FIRST_VEHICLE), (0.0, side * LANE)),
            stop_line_type='PED_CROSSING', ped_crossing_tokens=zebras, traffic_light_tokens=[],
            road_block_token=block)

    def lane(self, ahead, side, start, end, ends):
        """The lane of a direction, if it is completely on the map."""
        if not self.map.window.covers(self.strip((start, end), (0.0, side * LANE))):
            return
        edges = [[self.at(s, d) for s in (start, end)] for d in (0.0, side * LANE)]
        kerbs = [self.dashes(self.map.nodes(edge)) for edge in edges]
        left, right = kerbs[::-self.map.town.streets.side]
        first, last = (self.at(s, side * LANE / 2) for s in (start, end))
        way = ahead * np.array([1.0, 0.0] if self.along_x else [0.0, 1.0])
        name = self.map.lane(
            'lane', edges, (first, way), (last, way), 'LSL', 1000.0,
            [0.0, float(abs(end - start)), 0.0], lane_type='CAR', **ends,
            left_lane_divider_segments=left, right_lane_divider_segments=right)
        self.map.starts[_key(first)] = self.map.ends[_key(last)] = name

    @staticmethod
    def dashes(nodes):
        return [dict(node_token=node, segment_type='SINGLE_DASHED_WHITE') for node in nodes]

    def paint(self, layer, d, **fields):
        """A line along the street, if it is on the map."""
        from shapely import LineString

        line = LineString([self.at(s, d) for s in self.free]).intersection(self.map.window)
        if line.length > 0:
            name = self.map.line(line.coords)
            if layer == 'lane_divider':
                fields['lane_divider_segments'] = self.dashes(
                    self.map.rows['line'][-1]['node_tokens'])
            self.map.add(layer, line_token=name, **fields)
