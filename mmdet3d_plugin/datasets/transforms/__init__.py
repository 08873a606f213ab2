"""Load -> (augment) -> rasterise -> pack."""
from .augment import GlobalRotScaleTransFlip, RandomYaw
from .boxes import FilterBoxes
from .caching import Cached
from .formatting import PackBEVInputs, RasterizeBEV
from .loading import (
                      BuildLiDARImage,
                      LoadDualFisheye,
                      LoadDualFisheyePanorama,
                      LoadMultiViewImages,
                      LoadOusterScan,
                      LoadPanorama,
                      LoadPointCloud,
                      LoadStitchedPanorama,
                      SphericalLiDARImage,
)
from .maps import RasterizeMap
from .objects import CutObjects, PasteObjects
from .sweeps import KeepPoints, LoadSweeps, LoadVirtualPoints
from .views import ImageAug3D

__all__ = ['GlobalRotScaleTransFlip', 'ImageAug3D', 'BuildLiDARImage', 'Cached', 'CutObjects',
           'FilterBoxes', 'KeepPoints', 'LoadDualFisheye', 'LoadDualFisheyePanorama',
           'LoadOusterScan', 'LoadMultiViewImages', 'LoadPanorama', 'LoadPointCloud',
           'LoadStitchedPanorama', 'LoadSweeps', 'LoadVirtualPoints', 'PackBEVInputs',
           'PasteObjects', 'RandomYaw', 'RasterizeBEV', 'RasterizeMap', 'SphericalLiDARImage']
