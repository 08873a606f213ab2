from .generalized_lss_fpn import GeneralizedLSSFPN
from .upsample_concat import Projection, UpsampleConcat

__all__ = ['GeneralizedLSSFPN', 'Projection', 'UpsampleConcat']
