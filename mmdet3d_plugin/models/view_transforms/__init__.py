from .voxel_pulling import VoxelPulling

__all__ = ['VoxelPulling']
