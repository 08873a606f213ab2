from .upsample_concat import Projection, UpsampleConcat

__all__ = ['Projection', 'UpsampleConcat']
