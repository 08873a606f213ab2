"""A tiny folder in Dur360BEV's layout, with noise for content."""
import json
import pickle

import cv2
import numpy as np

ROWS, COLS = 8, 64
LABELS = ('Car 1.5 1.8 4.5 10 5 -1 0\nPedestrian 1.7 0.6 0.6 -8 2 -1 1.5\nTram 3 3 20 30 30 0 1\n',
          '', 'Bus 3 2.5 12 -20 -10 0.5 -2.5\n')


def make_root(root, frames=6, image=(32, 64), prefix='1000', scan=(ROWS, COLS)):
    """Write a data root; every third frame is empty; the last two frames are the test split."""
    rng = np.random.default_rng(0)
    rows, cols = scan
    for name in ('image', 'labels', 'ouster_points', 'oxts'):
        (root / name / 'data').mkdir(parents=True)
        times = ''.join(f'2024-06-01 10:00:{n:02d}.500000000\n' for n in range(frames))
        (root / name / 'timestamps.txt').write_text(times)
    (root / 'metadata').mkdir()
    shift = [int(s) for s in np.resize([3, 1, -1, -3], rows)]
    (root / 'metadata' / 'os1.json').write_text(json.dumps(dict(data_format=dict(
        pixels_per_column=rows, columns_per_frame=cols, pixel_shift_by_row=shift))))
    index = np.arange(frames)
    (root / 'metadata' / 'dataset_ext_indices.pkl').write_bytes(
        pickle.dumps(dict(train_indices=index[:-2], test_indices=index[-2:])))
    for n in range(frames):
        name = f'{prefix}{n:06d}'
        cv2.imwrite(str(root / 'image' / 'data' / f'{name}.png'),
                    rng.integers(0, 256, (*image, 3), np.uint8))
        (root / 'labels' / 'data' / f'{name}.txt').write_text(LABELS[n % 3])
        make_scan(rng, rows, cols, shift).tofile(root / 'ouster_points' / 'data' / f'{name}.bin')
        (root / 'oxts' / 'data' / f'{name}.txt').write_text(f'54.7{n} -1.57 60 0 0 0.5\n')
    return root


def make_scan(rng, rows, cols, shift):
    """(rows*cols, 9) float32 in firing order; a tenth without return."""
    elevation = np.deg2rad(np.linspace(20, -20, rows))[:, None]
    firing = (np.arange(cols) + np.asarray(shift)[:, None]) % cols
    azimuth = np.pi * (1 - 2 * (firing + 0.5) / cols)
    distance = rng.uniform(3, 40, (rows, cols)) * (rng.uniform(size=(rows, cols)) > 0.1)
    hit = distance > 0
    ring = np.broadcast_to(np.arange(rows)[:, None], (rows, cols))
    fields = [distance * np.cos(elevation) * np.cos(azimuth),
              distance * np.cos(elevation) * np.sin(azimuth), distance * np.sin(elevation),
              rng.gamma(2, 100, (rows, cols)) * hit, ring * 0,
              rng.integers(0, 255, (rows, cols)) * hit, ring,
              rng.gamma(3, 300, (rows, cols)), distance * 1000]
    return np.stack(fields, -1).reshape(-1, 9).astype('<f4')
