"""Students made ready for inference, and their way to ONNX and OpenVINO."""
from .deployed import DeployedStudent

__all__ = ['DeployedStudent']
