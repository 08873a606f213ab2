"""Data sets and their transforms."""
from . import transforms
from .bev_dataset import BEVDataset, Dur360BEVDataset

__all__ = ['BEVDataset', 'Dur360BEVDataset', 'transforms']
