from .sparse_encoder import SparseVoxelEncoder, VoxelBranch

__all__ = ['SparseVoxelEncoder', 'VoxelBranch']
