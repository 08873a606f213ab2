# The release's student with encoder "res101": ResNet-101 at stride 8.
_base_ = ['./kd360_student_effb0_dur360bev.py']

model = dict(camera_branch=dict(encoder=dict(
    backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=101,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        norm_eval=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/resnet101-cd907fc2.pth')),
    neck=dict(_delete_=True, type='UpsampleConcat', in_channels=(512, 1024), mid_channels=512,
              out_channels=_base_.channels))))
