"""Data sets and their transforms."""
from . import transforms
from .bev_dataset import BEVDataset, Dur360BEVDataset, Kitti360BEVDataset, NuScenesBEVDataset
from .class_balanced import CBGSBEVDataset

__all__ = ['BEVDataset', 'CBGSBEVDataset', 'Dur360BEVDataset', 'Kitti360BEVDataset',
           'NuScenesBEVDataset', 'transforms']
