# CenterPoint with voxels and a deformable head of mmdetection3d's model zoo: voxel01, head-dcn.
_base_ = ['./centerpoint_teacher_voxel_20e_nuscenes.py']

deform = dict(type='DCN', in_channels=64, out_channels=64, kernel_size=3, padding=1, groups=4)
model = dict(head=dict(
    separate_head=dict(type='DCNSeparateHead', dcn_config=deform, final_kernel=3),
    test_cfg=dict(nms_type='circle')))
