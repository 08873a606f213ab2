from .backbones import EfficientNet
from .bev_encoders import LSSFPN, BEVDecoder, BEVUNet, GeneralizedResNet
from .branches import BEVDownsample, CameraBranch, HeightCompressor, LiDARImageBranch
from .data_preprocessor import BEVDataPreprocessor
from .detectors import BEVModel
from .encoders import ImageEncoder, LiDARImageEncoder
from .fusers import SGFM, ConvFuser
from .heads import BEVMapHead, BEVSegHead
from .lidar import SparseVoxelEncoder, VoxelBranch
from .losses import BalancedMSELoss, BEVFocalLoss, OffsetL1Loss
from .necks import GeneralizedLSSFPN, Projection, UpsampleConcat
from .view_transforms import LiftSplat, VoxelPulling

__all__ = [
    'LSSFPN', 'SGFM', 'BEVDataPreprocessor', 'BEVDecoder', 'BEVDownsample', 'BEVFocalLoss',
    'BEVMapHead', 'BEVModel', 'BEVSegHead', 'BEVUNet', 'BalancedMSELoss', 'CameraBranch',
    'ConvFuser', 'EfficientNet', 'GeneralizedLSSFPN', 'GeneralizedResNet', 'HeightCompressor',
    'ImageEncoder', 'LiDARImageBranch', 'LiDARImageEncoder', 'LiftSplat', 'OffsetL1Loss',
    'Projection', 'SparseVoxelEncoder', 'UpsampleConcat', 'VoxelBranch', 'VoxelPulling'
]
