from ..models.taps import Tap
from .adapters import Adapter, ConvAdapter
from .assistants import AuxiliaryModule
from .context import Context
from .criteria import ChannelWiseKL, PredictionKL, SquaredDistance, WindowAffinity
from .distiller import Distiller
from .regions import GTForeground, Region
from .samplers import BoxPoints, Sampler
from .schedule import WeightSchedule
from .teacher import FrozenTeacher
from .terms import CrossHeadTerm, DualPathTerm, FeatureTerm, TaskTerm, Term

__all__ = [
    'Adapter', 'AuxiliaryModule', 'BoxPoints', 'ChannelWiseKL', 'Context', 'ConvAdapter',
    'CrossHeadTerm', 'Distiller', 'DualPathTerm', 'FeatureTerm', 'FrozenTeacher', 'GTForeground',
    'PredictionKL', 'Region', 'Sampler', 'SquaredDistance', 'Tap', 'TaskTerm', 'Term',
    'WeightSchedule', 'WindowAffinity'
]
