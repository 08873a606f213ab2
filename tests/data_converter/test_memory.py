"""Conversions of full size stay below 2 GB of memory.

A tenth is measured, against a tenth of what grows with the data; CONVERSION_SHARE=1 measures all.
"""
import json
import os
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest

from data_converter import nuscenes

pytestmark = pytest.mark.slow
SCENE = 40
"""Key frames of a scene."""

SHARE = float(os.environ.get('CONVERSION_SHARE', 0.1))
LIMIT_MB = 650 + 1350 * SHARE
"""Imports, and what grows with the data."""

MEASURE = """
import sys
from data_converter import dur360bev, nuscenes
from tests.helpers.memory import peak_mib
layout, root, out = sys.argv[1:]
if layout == 'nuscenes':  # tables only: every file counts as there
    nuscenes._file = lambda root, tables, row: tables.data['name'][row].decode()
    nuscenes.samples_of = lambda tables, root, scenes, whole=nuscenes.samples_of: (
        [t.decode() for s, t in zip(tables.samples['scene'], tables.samples['token'])
         if tables.scenes[s]['name'] in set(scenes)], 0)
    print(nuscenes.convert(root, out, 'v1.0-trainval'))
else:
    print(dur360bev.convert(root, out, 'extended'))
print(round(peak_mib()))
"""


def peak_mb(layout, root, out):
    """Peak of resident memory of a conversion, and its report."""
    done = subprocess.run([sys.executable, '-c', MEASURE, layout, str(root), str(out)],
                          capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    report, peak = done.stdout.rsplit('\n', 2)[:2]
    print(f'{layout}: {peak} MB; {report[:400]}')
    return int(peak), report


def test_dur360bev(tmp_path):
    frames = round(40_000 * SHARE)
    held_out = frames // 40
    root, one = tmp_path / 'data', tmp_path / 'one'
    one.mkdir()
    (one / 'image').write_bytes(cv2.imencode('.png', np.zeros((32, 64, 3), np.uint8))[1].tobytes())
    np.ones((512, 9), '<f4').tofile(one / 'ouster_points')
    (one / 'labels').write_text('Car 1.5123 1.8123 4.5123 10.12345 5.12345 -1.1234 0.12345\n' * 15)
    (one / 'oxts').write_text('54.7 -1.57 60 0 0 0.5\n')
    for sensor, end in dict(image='png', ouster_points='bin', labels='txt', oxts='txt').items():
        (root / sensor / 'data').mkdir(parents=True)
        for n in range(frames):
            os.link(one / sensor, root / sensor / 'data' / f'1000{n:06d}.{end}')
        (root / sensor / 'timestamps.txt').write_text(''.join(f'{n}\n' for n in range(frames)))
    (root / 'metadata').mkdir()
    (root / 'metadata' / 'os1.json').write_text(json.dumps(dict(data_format=dict(
        pixels_per_column=8, columns_per_frame=64, pixel_shift_by_row=[0] * 8))))
    (root / 'metadata' / 'dataset_ext_indices.json').write_text(json.dumps(dict(
        train_indices=list(range(held_out, frames)), test_indices=list(range(held_out)))))
    peak, report = peak_mb('dur360bev', root, tmp_path / 'out')
    assert f"'frames': {frames - held_out}" in report and peak < LIMIT_MB


def test_nuscenes(tmp_path):
    """Of 850 scenes: 34,000 samples, 2.6 million files, 1.2 million boxes."""
    pytest.importorskip('nuscenes')
    from nuscenes.utils.splits import create_splits_scenes
    splits = create_splits_scenes()
    train, val = (splits[name][:round(len(splits[name]) * SHARE)] for name in ('train', 'val'))
    write_tables(tmp_path / 'v1.0-trainval', train + val)
    for channel in nuscenes.CHANNELS:
        (tmp_path / 'samples' / channel).mkdir(parents=True)
    (tmp_path / 'sweeps/LIDAR_TOP').mkdir(parents=True)
    peak, report = peak_mb('nuscenes', tmp_path, tmp_path / 'out')
    assert f"'frames': {len(train) * SCENE}" in report and peak < LIMIT_MB
    assert f"'sweeps': {len(train) * 390}" in report


def write_tables(folder, names):
    """Tables of the size of trainval, with radars."""
    folder.mkdir()
    rng = random.Random(0)
    channels = ['LIDAR_TOP', *(f'CAM_{name}' for name in (
        'FRONT', 'FRONT_RIGHT', 'FRONT_LEFT', 'BACK', 'BACK_LEFT', 'BACK_RIGHT')),
        *(f'RADAR_{n}' for n in range(5))]
    rates = [390] + [230] * 6 + [260] * 5
    categories = ['vehicle.car', 'human.pedestrian.adult', 'movable_object.barrier', 'animal']
    camera = [[1266.4, 0, 816.2], [0, 1266.4, 491.5], [0, 0, 1]]

    def token(kind, n):
        return f'{kind}{n:030x}'

    def table(name, rows):
        with open(folder / f'{name}.json', 'w') as file:
            file.write('[')
            for n, row in enumerate(rows):
                file.write(f'{"," * (n > 0)}\n{json.dumps(row)}')
            file.write(']')

    def files():
        number = 0
        for scene in range(len(names)):
            for channel, count in enumerate(rates):
                keys = {round(k * (count - 1) / (SCENE - 1)): k for k in range(SCENE)}
                for n in range(count):
                    sample = keys.get(n, min(SCENE - 1, n * (SCENE - 1) // (count - 1) + 1))
                    time = scene * 60_000_000 + n * 19_500_000 // (count - 1)
                    yield number, scene * SCENE + sample, scene, channel, n in keys, time
                    number += 1

    table('category', (dict(token=token('c0', n), name=name) for n, name in enumerate(categories)))
    table('attribute', [dict(token='a', name='vehicle.moving')])
    table('log', [dict(token='l', location='boston-seaport')])
    table('sensor', (dict(token=token('5e', n), channel=name) for n, name in enumerate(channels)))
    table('calibrated_sensor', (
        dict(token=token('c5', scene * 12 + n), sensor_token=token('5e', n), rotation=[1, 0, 0, 0],
             translation=[.9, 0, 1.8], camera_intrinsic=camera if 'CAM' in name else [])
        for scene in range(len(names)) for n, name in enumerate(channels)))
    table('scene', (dict(token=token('5c', n), name=name, log_token='l')
                    for n, name in enumerate(names)))
    table('sample', (dict(token=token('5a', n), scene_token=token('5c', n // SCENE),
                          timestamp=n // SCENE * 60_000_000 + n % SCENE * 500_000)
                     for n in range(len(names) * SCENE)))
    table('sample_data', (dict(
        token=token('5d', n), sample_token=token('5a', sample), ego_pose_token=token('5d', n),
        calibrated_sensor_token=token('c5', scene * 12 + channel), timestamp=time,
        is_key_frame=key, height=900, width=1600,
        filename=f'{"samples" if key else "sweeps"}/{channels[channel]}/n015-2018-07-24-11-22-45'
                 f'+0800__{channels[channel]}__{time:016d}.bin')
        for n, sample, scene, channel, key, time in files()))
    table('ego_pose', (dict(token=token('5d', n), rotation=[1, 0, 0, 0],
                            translation=[rng.random() * 1000, rng.random() * 1000, 0.0])
                       for n, *_ in files()))
    table('instance', (dict(token=token('15', n), category_token=token('c0', n % 4))
                       for n in range(len(names) * 34)))
    table('sample_annotation', (dict(
        token=token('aa', n), sample_token=token('5a', n // 34), visibility_token='4',
        instance_token=token('15', n // 34 // SCENE * 34 + n % 34), attribute_tokens=['a'],
        translation=[rng.gauss(0, 30), rng.gauss(0, 30), rng.random()], rotation=[1, 0, 0, 0],
        size=[1.9 + rng.random(), 4.5 + rng.random(), 1.6], num_lidar_pts=9, num_radar_pts=0,
        prev=token('aa', n - 34) if n // 34 % SCENE else '',
        next=token('aa', n + 34) if (n // 34 + 1) % SCENE else '')
        for n in range(len(names) * SCENE * 34)))
