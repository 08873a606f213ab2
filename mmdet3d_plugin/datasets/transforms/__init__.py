"""Load -> (augment) -> rasterise -> pack."""
from .formatting import PackBEVInputs, RasterizeBEV
from .loading import BuildLiDARImage, LoadDualFisheyePanorama, LoadOusterScan

__all__ = ['BuildLiDARImage', 'LoadDualFisheyePanorama', 'LoadOusterScan', 'PackBEVInputs',
           'RasterizeBEV']
