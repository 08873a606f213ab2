# BEVDepth as released with ResNet-18, a student of BEV-LGKD's paper.
_base_ = ['./bevdepth_student_r50_24e_nuscenes.py']

model = dict(camera_branch=dict(encoder=dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=(64, 128, 256, 512)))))
