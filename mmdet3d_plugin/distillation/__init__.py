from .adapters import ConvAdapter
from .assistants import AuxiliaryModule
from .criteria import ChannelWiseKL, WindowAffinity
from .distiller import Distiller
from .taps import Tap
from .teacher import FrozenTeacher
from .terms import FeatureTerm, Term

__all__ = [
    'AuxiliaryModule', 'ChannelWiseKL', 'ConvAdapter', 'Distiller', 'FeatureTerm', 'FrozenTeacher',
    'Tap', 'Term', 'WindowAffinity'
]
