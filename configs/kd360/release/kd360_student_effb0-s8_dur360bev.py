# The release's student with encoder "effb0": B0 cut at stride 16, features at stride 8.
_base_ = ['./kd360_student_effb0_dur360bev.py']

model = dict(camera_branch=dict(encoder=dict(
    backbone=dict(out_indices=(3, 4)),
    neck=dict(_delete_=True, type='UpsampleConcat', in_channels=(40, 112), mid_channels=128,
              out_channels=_base_.channels))))
