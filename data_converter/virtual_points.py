"""Converts MVP's files of virtual points to ``.npz``; see :mod:`mmdet3d_plugin.structures`."""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Union

import numpy as np

from mmdet3d_plugin.checkpoints import atomic_write
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.structures.virtual_points import read_virtual_file

_OLD = '.pkl.npy'


def convert(root: Union[str, Path], workers: int = 4) -> Dict[str, int]:
    """Write ``NAME.npz`` beside every ``NAME.pkl.npy`` of a data root that has none.

    Args:
        root: Data root; folders named ``*_VIRTUAL`` below ``samples`` and ``sweeps`` are read.
        workers: Files at once.

    Returns:
        dict: How many files were there, and how many were written.

    Raises:
        FrameError: A file is damaged or has anything else; the others may be written.
        UserError: There is no such file.
    """
    files = sorted(path for top in ('samples', 'sweeps')
                   for path in Path(root).glob(f'{top}/*_VIRTUAL/*{_OLD}'))
    if not files:
        raise UserError(f'{root}: no samples/*_VIRTUAL/*{_OLD}; give the data root of nuScenes with'
                        ' the files of MVP')
    with ThreadPoolExecutor(workers) as pool:
        written = sum(pool.map(_convert, files))
    return dict(files=len(files), written=written)


def _convert(path: Path) -> bool:
    target = path.with_name(f'{path.name.removesuffix(_OLD)}.npz')
    if target.exists():
        return False
    arrays = read_virtual_file(path)
    with atomic_write(target) as file:
        np.savez_compressed(file, **arrays)
    return True
