"""What a frame is on disk (infos) and the names under which its parts travel."""
from . import fields
from .files import check_image, check_points
from .info import INFO_VERSION, load_infos, save_infos, validate_infos
from .plain_pickle import load_plain

__all__ = ['INFO_VERSION', 'check_image', 'check_points', 'fields', 'load_infos', 'load_plain',
           'save_infos', 'validate_infos']
