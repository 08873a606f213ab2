from .dual_path_term import DualPathTerm
from .feature_term import FeatureTerm
from .head_terms import CrossHeadTerm, TaskTerm
from .term import Term

__all__ = ['CrossHeadTerm', 'DualPathTerm', 'FeatureTerm', 'TaskTerm', 'Term']
