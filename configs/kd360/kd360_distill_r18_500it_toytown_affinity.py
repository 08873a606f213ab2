# As kd360_distill_r18_500it_toytown_stage1.py, with affinities instead of the divergence.
_base_ = ['./kd360_distill_r18_500it_toytown_stage1.py']

# Often changed ------------------------------------------------------------------------------------
affinity = dict(type='WindowAffinity', window=50)

# Rarely -------------------------------------------------------------------------------------------
model = dict(terms=dict(
    student=dict(criterion=dict(_delete_=True, **affinity)),
    assistant=dict(criterion=dict(_delete_=True, **affinity))))
