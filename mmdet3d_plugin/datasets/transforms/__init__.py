"""Load -> (augment) -> rasterise -> pack."""
from .augment import RandomYaw
from .formatting import PackBEVInputs, RasterizeBEV
from .loading import (
                      BuildLiDARImage,
                      LoadDualFisheyePanorama,
                      LoadOusterScan,
                      LoadPointCloud,
                      LoadStitchedPanorama,
                      SphericalLiDARImage,
)

__all__ = ['BuildLiDARImage', 'LoadDualFisheyePanorama', 'LoadOusterScan', 'LoadPointCloud',
           'LoadStitchedPanorama', 'PackBEVInputs', 'RandomYaw', 'RasterizeBEV',
           'SphericalLiDARImage']
