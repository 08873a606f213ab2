from .aux_losses import AuxHeadLoss, AuxLoss
from .backbones import EfficientNet
from .bev_encoders import LSSFPN, BEVDecoder, BEVUNet, GeneralizedResNet
from .branches import CameraBranch, LiDARImageBranch
from .data_preprocessor import BEVDataPreprocessor
from .detectors import BEVModel
from .encoders import ImageEncoder, LiDARImageEncoder
from .fusers import SGFM, ConvFuser
from .heads import BEVMapHead, BEVSegHead, CenterPointHead, MultiTaskHead
from .lidar import SparseVoxelEncoder, VoxelBranch
from .losses import BalancedMSELoss, BEVFocalLoss, OffsetL1Loss
from .necks import GeneralizedLSSFPN, Projection, UpsampleConcat
from .view_transforms import BEVDownsample, HeightCompressor, LiftSplat, VoxelPulling

__all__ = [
    'AuxHeadLoss', 'AuxLoss', 'BEVDataPreprocessor', 'BEVDecoder', 'BEVDownsample', 'BEVFocalLoss',
    'BEVMapHead', 'BEVModel', 'BEVSegHead', 'BEVUNet', 'BalancedMSELoss', 'CameraBranch',
    'CenterPointHead', 'ConvFuser', 'EfficientNet', 'GeneralizedLSSFPN', 'GeneralizedResNet',
    'HeightCompressor', 'ImageEncoder', 'LSSFPN', 'LiDARImageBranch', 'LiDARImageEncoder',
    'LiftSplat', 'MultiTaskHead', 'OffsetL1Loss', 'Projection', 'SGFM', 'SparseVoxelEncoder',
    'UpsampleConcat', 'VoxelBranch', 'VoxelPulling'
]
