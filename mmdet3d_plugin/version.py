"""The version, and the window of dependencies that work together: the one place that names them.

``setup.py`` reads this file without importing the package; ``mmdet3d_plugin`` checks the window at
import. ``requirements.txt`` holds the one set of versions inside the window that is tested.
"""
__version__ = '0.1.0'

#: distribution name -> (lowest version, first version that no longer works)
DEPENDENCIES = {
    'torch': ('2.1.0', '3.0.0'),
    'numpy': ('1.24.0', '3.0.0'),
    'scipy': ('1.15.3', '2.0.0'),
    'mmengine': ('0.10.0', '0.11.0'),
    'mmcv': ('2.1.0', '2.2.0'),
    'mmdet': ('3.2.0', '3.4.0'),
    'mmdet3d': ('1.4.0', '1.5.0'),
}
