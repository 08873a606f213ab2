# BEVDepth without past images.
_base_ = ['./bevdepth_student_r50_24e_nuscenes.py']

branch = dict(_base_.model.camera_branch, type='CameraBranch')
branch.pop('num_past')
model = dict(
    camera_branch=dict(_delete_=True, **branch),
    bev_encoder=dict(backbone=dict(in_channels=80), neck=dict(in_channels=(80, 160, 320, 640))))
train_dataloader = dict(dataset=dict(pipeline=_base_.camera_pipeline, image_table=None))
val_dataloader = dict(dataset=dict(pipeline=_base_.camera_test_pipeline, image_table=None))
test_dataloader = val_dataloader
