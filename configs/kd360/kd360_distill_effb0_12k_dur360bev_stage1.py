# As kd360_distill_effb0_12k_dur360bev.py, at stage 1 (fused BEV map).
_base_ = ['./kd360_distill_effb0_12k_dur360bev.py']

model = dict(
    assistant=dict(bev_encoder=None),
    terms=dict(
        student=dict(student='student.camera_branch', teacher='teacher.fuser'),
        assistant=dict(student='assistant.fuser', teacher='teacher.fuser')))
