# As bridgeta_distill_r18_500it_toytown.py, without an assistant: the student learns from the
# teacher directly, at the same levels.
_base_ = ['./bridgeta_distill_r18_500it_toytown.py']

model = dict(assistant=None, terms=dict(_delete_=True, **_base_.direct_terms))
