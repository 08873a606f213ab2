from .generalized_lss_fpn import GeneralizedLSSFPN
from .single_level_fpn import SingleLevelFPN
from .upsample_concat import Projection, UpsampleConcat

__all__ = ['GeneralizedLSSFPN', 'Projection', 'SingleLevelFPN', 'UpsampleConcat']
