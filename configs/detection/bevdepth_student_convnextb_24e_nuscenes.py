# BEVDepth with ConvNeXt-B.
_base_ = ['./bevdepth_student_r50_24e_nuscenes.py']

weights = ('https://download.openmmlab.com/mmclassification/v0/convnext/'
           'convnext-base_3rdparty_32xb128-noema_in1k_20220222-dba4f95f.pth')
model = dict(camera_branch=dict(encoder=dict(
    backbone=dict(
        _delete_=True, type='ConvNeXt', arch='base', out_indices=(0, 1, 2, 3), drop_path_rate=0.5,
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.')),
    neck=dict(in_channels=(128, 256, 512, 1024)))))
