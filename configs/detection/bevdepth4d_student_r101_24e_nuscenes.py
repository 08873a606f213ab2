# BEVDepth4D with ResNet-101.
_base_ = ['./bevdepth4d_student_r50_24e_nuscenes.py']

model = dict(camera_branch=dict(encoder=dict(backbone=dict(
    depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))))
