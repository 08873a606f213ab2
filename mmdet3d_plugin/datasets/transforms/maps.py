"""Ground truth from the map."""
from typing import Optional, Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ...errors import UserError, did_you_mean
from ...geometry import BEVGrid
from ...geometry.map_raster import rasterize_map
from ...structures import fields, lidar2global, vector_map


@TRANSFORMS.register_module()
class RasterizeMap(BaseTransform):
    """NuScenes' map around a frame -> ``gt_bev``: ``seg`` (K, R, C) float32 {0, 1}.

    Needs the frame's ``location`` and pose (``ego2global``, and ``lidar2ego`` of its
    ``lidar_points``), no sensor's file and no boxes, and follows its ``bev_aug``. A map is read
    when the first frame needs it; those in ``preload`` at once, before workers fork. Frames without
    ``location`` (prediction on new data) pass without ``gt_bev``, but in training.

    Args:
        grid (dict): The BEV grid, as the model's.
        classes (tuple): Names of the channels; layers of the map, or 'divider' for both kinds.
        method (str): 'exact', or 'devkit' for what BEVFusion trains on; see
            :func:`geometry.map_raster.rasterize_map`.
        line_width (float): Of dividers in 'exact', metres.
        scale_aware (bool): False leaves the scale of ``bev_aug`` out, as BEVFusion does.
        data_root (str, optional): Folder with ``maps/expansion/``; default the data set's.
        preload (tuple): Locations; they need ``data_root``.

    Raises:
        UserError: a class is unknown; a map is missing, outdated or malformed; a frame has no
            location or pose, or ground truth already.
    """

    def __init__(self, grid: dict, classes: Sequence[str] = vector_map.CLASSES,
                 method: str = 'exact', line_width: float = 1.0, scale_aware: bool = True,
                 data_root: Optional[str] = None, preload: Sequence[str] = ()):
        known = (*vector_map.LAYERS_OF, *vector_map.AREAS, *vector_map.LINES)
        for name in classes:
            if name not in known:
                raise UserError(f'RasterizeMap.classes: unknown class {name!r}'
                                f'{did_you_mean(name, known)}')
        if not line_width > 0:
            raise UserError(f'RasterizeMap.line_width: expected metres > 0, got {line_width}')
        self.data_root, self.grid, self.classes = data_root, BEVGrid(**grid), tuple(classes)
        self.options = dict(method=method, line_width=line_width, scale_aware=scale_aware)
        rasterize_map([], np.eye(4), self.grid, **self.options)
        for location in preload:
            for layer in vector_map.load_map(data_root, location).values():
                layer.prepare()

    def transform(self, results: dict) -> dict:
        """Rasterise."""
        if fields.GT_BEV in results:
            raise UserError('RasterizeMap: the frame has gt_bev already; keep one of RasterizeBEV '
                            'and RasterizeMap in the pipeline')
        results[fields.BEV_GRID] = self.grid.asdict()
        results[fields.MAP_CLASSES] = self.classes
        if 'location' not in results and 'ann_info' not in results:
            return results
        root = self.data_root or results.get('map_root')
        for key in ('location', 'ego2global'):
            if key not in results:
                raise UserError(f'RasterizeMap: frame {results.get("token")} has no {key}; convert '
                                'nuScenes with tools/create_data.py')
        if root is None:
            raise UserError('RasterizeMap: neither the transform nor the data set says where the '
                            'maps are; set RasterizeMap.data_root')
        layers = vector_map.load_map(root, results['location'])
        chosen = [[layers[name] for name in vector_map.LAYERS_OF.get(name, (name,))]
                  for name in self.classes]
        seg = rasterize_map(chosen, lidar2global(results), self.grid,
                            bev_aug=results.get(fields.BEV_AUG), **self.options)
        results[fields.GT_BEV] = {fields.SEG: seg}
        return results
