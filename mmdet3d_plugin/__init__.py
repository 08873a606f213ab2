"""Cross-modal knowledge distillation in bird's-eye view, as a plugin of MMDetection3D.

Importing the package registers its modules in mmdet3d's registries; a config needs
``custom_imports = dict(imports=['mmdet3d_plugin'], allow_failed_imports=False)``.
"""
import importlib
from importlib import metadata
from pathlib import Path

from packaging.version import Version

from .version import DEPENDENCIES, __version__

__all__ = ['__version__', 'check_dependencies']


def check_dependencies(window: dict = DEPENDENCIES) -> None:
    """Check that every dependency is installed in a version of the window.

    Args:
        window (dict): Distribution name -> (lowest version, first version that is too new).

    Raises:
        ImportError: A dependency is missing or outside. The message names each of them and the
            command that installs them.
    """
    wrong = []
    for name, (lowest, beyond) in window.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = None
        if found is None or not Version(lowest) <= Version(found) < Version(beyond):
            wrong.append(f"'{name}>={lowest},<{beyond}' (found: {found or 'nothing'})")
    if wrong:
        raise ImportError(f'mmdet3d_plugin needs {", ".join(wrong)}; run `bash tools/setup_env.sh`,'
                          ' which installs versions that work together')


check_dependencies()

for _name in ('structures', 'datasets', 'models', 'distillation', 'evaluation', 'visualization',
              'engine'):
    if (Path(__file__).parent / _name / '__init__.py').exists():
        importlib.import_module(f'{__name__}.{_name}')
