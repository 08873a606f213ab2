from .feature_term import FeatureTerm
from .term import Term

__all__ = ['FeatureTerm', 'Term']
