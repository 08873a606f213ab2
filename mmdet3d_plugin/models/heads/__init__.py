from .bev_head import BEVHead, BEVMapsHead, HeadOutput
from .bev_map_head import BEVMapHead
from .bev_seg_head import BEVSegHead
from .center_point_head import CenterPointHead
from .instances import CenterGrouping
from .multi_task_head import MultiTaskHead

__all__ = [
    'BEVHead', 'BEVMapHead', 'BEVMapsHead', 'BEVSegHead', 'CenterGrouping', 'CenterPointHead',
    'HeadOutput', 'MultiTaskHead'
]
