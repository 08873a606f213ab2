from .lift_splat import LiftSplat
from .voxel_pulling import VoxelPulling

__all__ = ['LiftSplat', 'VoxelPulling']
