"""Load -> (augment) -> rasterise -> pack."""
from .augment import AugmentBEV, RandomYaw
from .caching import Cached
from .formatting import PackBEVInputs, RasterizeBEV
from .loading import (
                      BuildLiDARImage,
                      LoadDualFisheye,
                      LoadDualFisheyePanorama,
                      LoadOusterScan,
                      LoadPictures,
                      LoadPointCloud,
                      LoadStitchedPanorama,
                      SphericalLiDARImage,
)
from .maps import RasterizeMap
from .sweeps import LoadSweeps
from .views import AugmentViews

__all__ = ['AugmentBEV', 'AugmentViews', 'BuildLiDARImage', 'Cached', 'LoadDualFisheye',
           'LoadDualFisheyePanorama', 'LoadOusterScan', 'LoadPictures', 'LoadPointCloud',
           'LoadStitchedPanorama', 'LoadSweeps', 'PackBEVInputs', 'RandomYaw', 'RasterizeBEV',
           'RasterizeMap', 'SphericalLiDARImage']
