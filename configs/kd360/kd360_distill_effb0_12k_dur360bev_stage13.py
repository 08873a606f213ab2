# As kd360_distill_effb0_12k_dur360bev_stage123.py, without stage 2.
_base_ = ['./kd360_distill_effb0_12k_dur360bev_stage123.py']

model = dict(terms=dict(stage2=None, stage2_assistant=None))
