"""Load -> (augment) -> rasterise -> pack."""
from .augment import RandomYaw
from .formatting import PackBEVInputs, RasterizeBEV
from .loading import (
                      BuildLiDARImage,
                      LoadDualFisheyePanorama,
                      LoadOusterScan,
                      LoadPictures,
                      LoadPointCloud,
                      LoadStitchedPanorama,
                      SphericalLiDARImage,
)
from .maps import RasterizeMap

__all__ = ['BuildLiDARImage', 'LoadDualFisheyePanorama', 'LoadOusterScan', 'LoadPictures',
           'LoadPointCloud', 'LoadStitchedPanorama', 'PackBEVInputs', 'RandomYaw', 'RasterizeBEV',
           'RasterizeMap', 'SphericalLiDARImage']
