# The release's student with encoder "effb4": B4 cut at stride 16, features at stride 8.
_base_ = ['./kd360_student_effb0_dur360bev.py']

model = dict(camera_branch=dict(encoder=dict(
    backbone=dict(arch='b4', out_indices=(3, 4), init_cfg=None),
    neck=dict(_delete_=True, type='UpsampleConcat', in_channels=(56, 160), mid_channels=128,
              out_channels=_base_.channels))))
