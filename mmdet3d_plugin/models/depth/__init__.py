from .depth_nets import BEVDetDepthNet, DepthNet, DepthRefinement, MegviiDepthNet
from .losses import DepthLoss

__all__ = ['BEVDetDepthNet', 'DepthLoss', 'DepthNet', 'DepthRefinement', 'MegviiDepthNet']
