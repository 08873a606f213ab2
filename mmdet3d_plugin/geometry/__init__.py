"""Pure functions on tensors and arrays: no registry, no config."""
from .bev_grid import BEVGrid
from .cameras import CameraRig
from .commuted import build_commuted_maps, pull_convolved, pull_occupied_convolved
from .pooling import (
    PullMap,
    build_pull_map,
    occupied_voxels,
    pull_dense,
    pull_occupied,
    sample_features,
)

__all__ = [
    'BEVGrid', 'CameraRig', 'PullMap', 'build_commuted_maps', 'build_pull_map', 'occupied_voxels',
    'pull_convolved', 'pull_dense', 'pull_occupied', 'pull_occupied_convolved', 'sample_features'
]
