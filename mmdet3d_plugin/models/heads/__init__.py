from .bev_map_head import BEVMapHead
from .bev_seg_head import BEVSegHead
from .instances import CenterGrouping

__all__ = ['BEVMapHead', 'BEVSegHead', 'CenterGrouping']
