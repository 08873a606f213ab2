"""Metrics."""
from .bev_iou import BEVIoUMetric

__all__ = ['BEVIoUMetric']
