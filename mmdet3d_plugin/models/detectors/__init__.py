from .bev_model import BEVModel

__all__ = ['BEVModel']
