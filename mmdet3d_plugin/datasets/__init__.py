"""Data sets and their transforms."""
from . import transforms
from .bev_dataset import BEVDataset, Dur360BEVDataset, Kitti360BEVDataset, NuScenesBEVDataset

__all__ = ['BEVDataset', 'Dur360BEVDataset', 'Kitti360BEVDataset', 'NuScenesBEVDataset',
           'transforms']
