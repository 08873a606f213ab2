"""Load (or read from a cache) -> (augment) -> rasterise -> pack."""
from .augment import RandomYaw
from .caching import Cached
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

__all__ = ['BuildLiDARImage', 'Cached', 'LoadDualFisheyePanorama', 'LoadOusterScan',
           'LoadPictures', 'LoadPointCloud', 'LoadStitchedPanorama', 'PackBEVInputs', 'RandomYaw',
           'RasterizeBEV', 'RasterizeMap', 'SphericalLiDARImage']
