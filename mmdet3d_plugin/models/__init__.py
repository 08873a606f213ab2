from .backbones import EfficientNet
from .bev_encoders import BEVUNet
from .branches import CameraBranch, HeightCompressor, LiDARImageBranch
from .data_preprocessor import BEVDataPreprocessor
from .detectors import BEVModel
from .encoders import ImageEncoder, LiDARImageEncoder
from .fusers import SGFM
from .heads import BEVSegHead
from .losses import BalancedMSELoss, BEVFocalLoss, OffsetL1Loss
from .necks import Projection, UpsampleConcat
from .view_transforms import VoxelPulling

__all__ = [
    'SGFM', 'BEVDataPreprocessor', 'BEVFocalLoss', 'BEVModel', 'BEVSegHead', 'BEVUNet',
    'BalancedMSELoss', 'CameraBranch', 'EfficientNet', 'HeightCompressor', 'ImageEncoder',
    'LiDARImageBranch', 'LiDARImageEncoder', 'OffsetL1Loss', 'Projection', 'UpsampleConcat',
    'VoxelPulling'
]
