from .adapters import ConvAdapter
from .assistants import AuxiliaryModule
from .criteria import ChannelWiseKL, PredictionKL, SquaredDistance, WindowAffinity
from .distiller import Distiller
from .taps import Tap
from .teacher import FrozenTeacher
from .terms import CrossHeadTerm, DualPathTerm, FeatureTerm, TaskTerm, Term

__all__ = [
    'AuxiliaryModule', 'ChannelWiseKL', 'ConvAdapter', 'CrossHeadTerm', 'Distiller',
    'DualPathTerm', 'FeatureTerm', 'FrozenTeacher', 'PredictionKL', 'SquaredDistance', 'Tap',
    'TaskTerm', 'Term', 'WindowAffinity'
]
