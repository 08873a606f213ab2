"""Objects cut out of a data set, to be pasted into other frames in training."""
from pathlib import Path
from typing import NamedTuple, Tuple, Union

import numpy as np
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from torch.utils.data import DataLoader

from ..checkpoints import atomic_write
from ..errors import UserError, parse_errors
from ..geometry import rigid
from ..structures import fields, gravity_boxes

_NEEDED = ('boxes', 'names', 'first', 'count', 'columns')


class ObjectDatabase(NamedTuple):
    """Objects of a data set with the points in their boxes.

    Two files: ``PATH.npz`` with the arrays below, and ``PATH.bin``, the points one object after the
    other, float32. They are as the transforms of a config load them, in its axes.

    Attributes:
        boxes (ndarray): (N, 9) x, y, z of the gravity centre, length, width, height, yaw, vx, vy;
            float32, velocities NaN where unknown.
        names (ndarray): (N,) class.
        first, count (ndarray): (N,) number of the first point, and of points.
        points (ndarray): (P, columns) float32, mapped from the file.
    """
    boxes: np.ndarray
    names: np.ndarray
    first: np.ndarray
    count: np.ndarray
    points: np.ndarray

    @classmethod
    def load(cls, path: Union[str, Path]) -> 'ObjectDatabase':
        """Open the two files.

        Raises:
            UserError: One is missing or damaged, or they are of different databases.
        """
        path = Path(path)
        if not path.with_name(f'{path.name}.npz').is_file():
            raise UserError(f'{path}.npz: no database of objects; make it with python '
                            'tools/create_database.py CONFIG')
        with parse_errors(f'{path}.npz: no database of objects', 'make it again'):
            with np.load(path.with_name(f'{path.name}.npz'), allow_pickle=False) as file:
                boxes, names, first, count, columns = (file[name] for name in _NEEDED)
            total, columns = int(count.sum()), int(columns)
        binary = path.with_name(f'{path.name}.bin')
        size = binary.stat().st_size if binary.is_file() else -1
        if size != 4 * total * columns:
            raise UserError(f'{binary}: {size} bytes, expected {total} points of {columns} '
                            'float32; make the database again')
        points = np.memmap(binary, '<f4', 'r', shape=(total, columns)) if total else np.zeros(
            (0, columns), np.float32)
        return cls(boxes, names, first, count, points)

    def points_of(self, n: int) -> np.ndarray:
        """(count, columns) of an object, copied."""
        return np.array(self.points[self.first[n]:self.first[n] + self.count[n]])


def paste_of(config: Config) -> Tuple[dict, int]:
    """The training data of a config and the place of its ``PasteObjects``.

    Raises:
        UserError: There is none.
    """
    dataset = config.train_dataloader.dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    types = [transform.type for transform in dataset.get('pipeline', ())]
    if 'PasteObjects' not in types:
        raise UserError('the training pipeline of the config has no PasteObjects, which says what '
                        'the database is called')
    return dataset, types.index('PasteObjects')


def create_database(config: Config, workers: int = 0) -> dict:
    """Write the database that the ``PasteObjects`` of a config reads.

    The transforms before it load the frames; sweeps are the nearest ones.

    Args:
        config (Config): The config.
        workers (int): Processes that load.

    Returns:
        dict: Its path, and how many objects of each class there are.

    Raises:
        UserError: The config has no ``PasteObjects``, or a file of a frame is damaged.
    """
    dataset, place = paste_of(config)
    paste = dataset.pipeline[place]
    steps = [dict(step, random=False) if 'random' in step else step
             for step in dataset.pipeline[:place]]
    frames = DATASETS.build(dict(dataset, pipeline=[*steps, dict(type='CutObjects')],
                                 max_bad_frames=0))
    path = Path(frames.data_root) / paste['database']
    loader = DataLoader(frames, batch_size=None, num_workers=workers, collate_fn=lambda x: x)
    found, columns = [], 0
    with atomic_write(path.with_name(f'{path.name}.bin')) as file:
        for boxes, names, count, points in loader:
            file.write(points.astype('<f4').tobytes())
            found.append((boxes, names, count))
            columns = points.shape[1]
    boxes, names, count = map(np.concatenate, zip(*found))
    with atomic_write(path.with_name(f'{path.name}.npz')) as file:
        np.savez_compressed(file, boxes=boxes, names=names, first=count.cumsum() - count,
                            count=count, columns=columns)
    classes, numbers = np.unique(names, return_counts=True)
    return dict(path=str(path), **dict(zip(classes.tolist(), numbers.tolist())))


def cut_objects(results: dict) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 9), classes (N,), numbers of points (N,) and points (P, F) of a frame's objects
    that have points.
    """
    points = results[fields.POINTS].tensor.numpy()
    ann = results['ann_info']
    boxes = gravity_boxes(ann['gt_bboxes_3d']).numpy()
    inside = rigid.points_in_boxes(points, boxes)
    kept = inside.any(1)
    names = np.array(results[fields.CLASSES], str)[ann['gt_labels_3d'][kept]]
    return (boxes[kept], names, inside[kept].sum(1).astype(np.int64),
            points[np.nonzero(inside[kept])[1]])
