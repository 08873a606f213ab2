from .aux_losses import AuxHeadLoss, AuxLoss
from .backbones import ConvNeXt, EfficientNet, MobileNetV2
from .bev_encoders import (
    LSSFPN,
    BEVDecoder,
    BEVDetFPN,
    BEVDetResNet,
    BEVResNet,
    BEVUNet,
    GeneralizedResNet,
)
from .branches import CameraBranch, LiDARImageBranch
from .data_preprocessor import BEVDataPreprocessor
from .depth import BEVDetDepthNet, DepthLoss, DepthRefinement, MegviiDepthNet
from .detectors import BEVModel
from .encoders import ImageEncoder, LiDARImageEncoder
from .fusers import SGFM, ConvFuser
from .heads import BEVMapHead, BEVSegHead, CenterPointHead, MultiTaskHead
from .lidar import PillarBranch, SparseVoxelEncoder, VoxelBranch
from .losses import BalancedMSELoss, BEVFocalLoss, OffsetL1Loss
from .necks import GeneralizedLSSFPN, Projection, SingleLevelFPN, UpsampleConcat
from .temporal import TemporalCameraBranch
from .view_transforms import BEVDownsample, HeightCompressor, LiftSplat, VoxelPulling

__all__ = [
    'AuxHeadLoss', 'AuxLoss', 'BEVDataPreprocessor', 'BEVDecoder', 'BEVDetDepthNet',
    'BEVDetFPN', 'BEVDetResNet', 'BEVDownsample', 'BEVFocalLoss', 'BEVMapHead', 'BEVModel',
    'BEVResNet', 'BEVSegHead', 'BEVUNet', 'BalancedMSELoss', 'CameraBranch', 'CenterPointHead',
    'ConvFuser', 'ConvNeXt', 'DepthLoss', 'DepthRefinement', 'EfficientNet',
    'GeneralizedLSSFPN', 'GeneralizedResNet', 'HeightCompressor', 'ImageEncoder', 'LSSFPN',
    'LiDARImageBranch', 'LiDARImageEncoder', 'LiftSplat', 'MegviiDepthNet', 'MobileNetV2',
    'MultiTaskHead', 'OffsetL1Loss', 'PillarBranch', 'Projection', 'SGFM', 'SingleLevelFPN',
    'SparseVoxelEncoder', 'TemporalCameraBranch', 'UpsampleConcat', 'VoxelBranch',
    'VoxelPulling'
]
