"""What a frame is on disk (infos) and the names under which its parts travel."""
from . import fields
from .info import INFO_VERSION, load_infos, save_infos, validate_infos

__all__ = ['INFO_VERSION', 'fields', 'load_infos', 'save_infos', 'validate_infos']
