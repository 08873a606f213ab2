# As kd360_distill_effb0_12k_dur360bev_stage123.py, without stage 3.
_base_ = ['./kd360_distill_effb0_12k_dur360bev_stage123.py']

model = dict(
    assistant=dict(bev_encoder=dict(decode=False)),
    terms=dict(stage3=None, stage3_assistant=None))
