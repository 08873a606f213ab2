# As kd360_distill_r18_500it_toytown_am.py, at stage 1 (fused BEV map).
_base_ = ['./kd360_distill_r18_500it_toytown_am.py']

model = dict(
    assistant=dict(bev_encoder=None, head=None),
    terms=dict(
        student=dict(student='student.camera_branch', teacher='teacher.fuser'),
        assistant=dict(student='assistant.fuser', teacher='teacher.fuser')))
