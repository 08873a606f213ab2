from .pillars import PillarBranch
from .sparse_encoder import SparseVoxelEncoder, VoxelBranch

__all__ = ['PillarBranch', 'SparseVoxelEncoder', 'VoxelBranch']
