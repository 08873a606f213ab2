# CenterPoint with dynamic pillars of mmdetection3d 0.17: the teacher of DistillBEV and DualDistill.
_base_ = ['./centerpoint_teacher_hardpillar_20e_nuscenes.py']

model = dict(lidar_branch=dict(max_points=None), head=dict(test_cfg=dict(nms_type='rotate')))
