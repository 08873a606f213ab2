"""Metrics."""
from .bev_instances import BEVInstanceMetric
from .bev_iou import BEVIoUMetric
from .depth import DepthMetric
from .detection import NuScenesDetectionMetric
from .map_iou import MapIoUMetric

__all__ = [
    'BEVIoUMetric', 'BEVInstanceMetric', 'DepthMetric', 'MapIoUMetric', 'NuScenesDetectionMetric'
]
