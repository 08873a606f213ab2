# BEVDepth as released with ResNet-101.
_base_ = ['./bevdepth_student_r50_24e_nuscenes.py']

model = dict(camera_branch=dict(encoder=dict(backbone=dict(
    depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))))
