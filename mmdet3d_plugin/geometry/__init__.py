"""Pure functions on tensors and arrays: no registry, no config."""
from .bev_grid import BEVGrid
from .cameras import CameraRig
from .pooling import (
    PullMap,
    build_pull_map,
    occupancy,
    occupied_voxels,
    pull_dense,
    pull_occupied,
    sample_features,
)
from .reordered import build_reordered_maps, pull_fused, pull_occupied_fused

__all__ = [
    'BEVGrid', 'CameraRig', 'PullMap', 'build_reordered_maps', 'build_pull_map', 'occupancy',
    'occupied_voxels', 'pull_fused', 'pull_dense', 'pull_occupied', 'pull_occupied_fused',
    'sample_features'
]
