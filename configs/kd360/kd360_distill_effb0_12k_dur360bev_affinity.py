# As kd360_distill_effb0_12k_dur360bev_stage1.py, with affinities instead of the divergence.
_base_ = ['./kd360_distill_effb0_12k_dur360bev_stage1.py']

# Often changed ------------------------------------------------------------------------------------
affinity = dict(type='WindowAffinity', window=100)

# Rarely -------------------------------------------------------------------------------------------
model = dict(terms=dict(
    student=dict(criterion=dict(_delete_=True, **affinity)),
    assistant=dict(criterion=dict(_delete_=True, **affinity))))
