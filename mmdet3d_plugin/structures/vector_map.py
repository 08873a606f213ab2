"""nuScenes' map expansion, read once per process."""
import json
import os
from functools import cache
from typing import Dict

import numpy as np

from ..errors import UserError, did_you_mean, parse_errors
from ..geometry.map_raster import MapLayer

CLASSES = ('drivable_area', 'ped_crossing', 'walkway', 'stop_line', 'carpark_area', 'divider')
"""Classes of BEV map segmentation, in BEVFusion's order."""

LAYERS_OF = {'divider': ('road_divider', 'lane_divider')}
"""Layers of a class; other classes are layers of the same name."""

AREAS = ('drivable_area', 'road_segment', 'road_block', 'lane', 'ped_crossing', 'walkway',
         'stop_line', 'carpark_area')
LINES = ('road_divider', 'lane_divider')
LOWEST = (1, 3)
"""Lowest version of a map."""
FARTHEST = 1e6
"""Metres of a node from the map's origin."""
DOWNLOAD = ('download "Map expansion" (v1.3) from https://www.nuscenes.org/nuscenes#download and '
            'extract it in maps/ of the data root')


def map_path(data_root: str, location: str) -> str:
    """File of a map."""
    return os.path.join(data_root, 'maps', 'expansion', f'{location}.json')


def load_map(data_root: str, location: str) -> Dict[str, MapLayer]:
    """The layers of a map; read once in a process, and shared with processes forked later.

    Args:
        data_root: folder with ``maps/``.
        location: name of the map.

    Returns:
        dict: name of each of ``AREAS`` and ``LINES`` -> :class:`MapLayer`, in metres.

    Raises:
        UserError: the file is missing, older than version 1.3, or malformed.
    """
    return _load(map_path(data_root, location))


@cache
def _load(path):
    if not os.path.exists(path):
        folder = os.path.dirname(path)
        there = os.listdir(folder) if os.path.isdir(folder) else ()
        raise UserError(f'{path}: no such map{did_you_mean(os.path.basename(path), there)}; '
                        f'{DOWNLOAD}')
    with parse_errors(f'{path}: unreadable map', DOWNLOAD), \
            open(path, encoding='utf-8-sig') as file:
        raw = json.load(file)
    version = raw.get('version', '1.0') if isinstance(raw, dict) else 'none'
    if _numbers(version) < LOWEST:
        raise UserError(f'{path}: map of version {version!s:.40}, expected 1.3 or later; '
                        f'{DOWNLOAD}')
    with parse_errors(f'{path}: malformed map', DOWNLOAD):
        return _layers(raw)


def _numbers(version):
    try:
        return tuple(map(int, str(version).split('.')))
    except ValueError:
        return ()


def _layers(raw):
    import shapely
    number = {node['token']: n for n, node in enumerate(raw['node'])}
    places = np.array([_place(node) for node in raw['node']]).reshape(-1, 2)
    if not (np.abs(places) < FARTHEST).all():
        raise ValueError(f'a node has no place within {FARTHEST:g} m')

    def ring(tokens):
        return places[[number[token] for token in tokens]]

    def polygon(record):
        holes = [ring(hole['node_tokens']) for hole in record['holes'] if hole['node_tokens']]
        return shapely.Polygon(ring(record['exterior_node_tokens']), holes)

    polygons = {record['token']: record for record in raw['polygon']}
    lines = {record['token']: record['node_tokens'] for record in raw['line']}
    layers = {}
    for name in AREAS:
        tokens = [token for row in raw[name] for token in (
            row['polygon_tokens'] if name == 'drivable_area' else [row['polygon_token']])]
        shapes = [polygon(polygons[token]) for token in tokens]
        layers[name] = MapLayer(_array(shapes), keep_invalid=name == 'drivable_area')
    for name in LINES:
        chains = [lines[row['line_token']] for row in raw[name]]
        shapes = [shapely.LineString(ring(chain)) for chain in chains if len(chain) > 1]
        layers[name] = MapLayer(_array(shapes), lines=True)
    return layers


def _place(node):
    x, y = node['x'], node['y']
    if not {type(x), type(y)} <= {int, float}:
        raise TypeError(f'a node is at {x!r:.20}, {y!r:.20}')
    return float(x), float(y)


def _array(shapes):
    out = np.empty(len(shapes), object)
    out[:] = shapes
    return out
