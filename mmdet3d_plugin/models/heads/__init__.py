from .bev_seg_head import BEVSegHead
from .instances import CenterGrouping

__all__ = ['BEVSegHead', 'CenterGrouping']
