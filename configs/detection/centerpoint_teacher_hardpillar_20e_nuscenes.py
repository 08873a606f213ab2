# CenterPoint with hard pillars of at most 20 points, as in mmdetection3d's model zoo.
_base_ = ['./centerpoint_teacher_pillar_20e_nuscenes.py']

model = dict(lidar_branch=dict(max_points=20))
