# BEVDepth as released with MobileNetV2, a student of BEV-LGKD's paper.
_base_ = ['./bevdepth_student_r50_24e_nuscenes.py']

model = dict(camera_branch=dict(encoder=dict(
    backbone=dict(
        _delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6),
        init_cfg=dict(type='Pretrained', checkpoint='mmcls://mobilenet_v2')),
    neck=dict(in_channels=(24, 32, 96, 320)))))
