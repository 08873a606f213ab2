# CenterPoint with pillars and a deformable head of mmdetection3d's model zoo: pillar02, head-dcn.
_base_ = ['./centerpoint_teacher_hardpillar_20e_nuscenes.py']

deform = dict(type='DCN', in_channels=64, out_channels=64, kernel_size=3, padding=1, groups=4)
model = dict(head=dict(
    separate_head=dict(type='DCNSeparateHead', dcn_config=deform, final_kernel=3),
    test_cfg=dict(nms_type='rotate')))
