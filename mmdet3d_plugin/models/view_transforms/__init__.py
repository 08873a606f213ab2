from .compressors import BEVDownsample, HeightCompressor
from .lift_splat import LiftSplat
from .view_transform import ViewTransform
from .voxel_pulling import VoxelPulling

__all__ = ['BEVDownsample', 'HeightCompressor', 'LiftSplat', 'ViewTransform', 'VoxelPulling']
