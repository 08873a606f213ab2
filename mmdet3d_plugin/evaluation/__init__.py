"""Metrics."""
from .bev_instances import BEVInstanceMetric
from .bev_iou import BEVIoUMetric

__all__ = ['BEVIoUMetric', 'BEVInstanceMetric']
