"""Info files, and the names of model inputs and of fields of a data sample."""
from ..plain_pickle import load_plain
from . import fields
from .boxes import gravity_boxes
from .files import check_image, check_points, file_name, read_image
from .info import (
    INFO_VERSION,
    check_rig,
    check_scan,
    lidar2global,
    load_infos,
    load_metainfo,
    save_infos,
    validate_infos,
)
from .virtual_points import read_virtual_points, virtual_path

__all__ = ['INFO_VERSION', 'check_image', 'check_points', 'check_rig', 'check_scan', 'fields',
           'file_name', 'gravity_boxes', 'lidar2global', 'load_infos', 'load_metainfo',
           'load_plain', 'read_image', 'read_virtual_points', 'save_infos', 'validate_infos',
           'virtual_path']
