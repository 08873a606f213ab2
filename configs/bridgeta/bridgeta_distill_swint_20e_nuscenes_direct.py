# As bridgeta_distill_swint_20e_nuscenes.py, without an assistant: the student learns from the
# teacher directly, at the same levels.
_base_ = ['./bridgeta_distill_swint_20e_nuscenes.py']

model = dict(assistant=None, terms=dict(_delete_=True, **_base_.direct_terms))
