"""Packaging; versions come from ``mmdet3d_plugin/version.py``."""
import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = runpy.run_path(str(ROOT / 'mmdet3d_plugin' / 'version.py'))
README = ROOT / 'README.md'

setup(
    name='mmdet3d-plugin',
    version=VERSION['__version__'],
    description="Cross-modal knowledge distillation in bird's-eye view for MMDetection3D",
    long_description=README.read_text(encoding='utf-8') if README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmdet3d_plugin*', 'data_converter*']),
    python_requires='>=3.10,<3.13',
    install_requires=[
        f'{name}>={lowest},<{beyond}' for name, (lowest, beyond) in VERSION['DEPENDENCIES'].items()
    ],
    extras_require={'toytown': ['trimesh', 'embreex'],
                    'export': ['onnx', 'onnxscript', 'onnxruntime'],
                    'openvino': ['openvino']},
)
