# KD360-VoxelBEV student, tiny, fitted to one nuScenes keyframe.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/nuscenes_keyframe.py',
    '../_base_/models/kd360_student_tiny.py', '../_base_/schedules/keyframe.py'
]

# The road is at z = -1.84 m; the voxels cover the heights from there to above a bus.
model = dict(
    grid=_base_.grid,
    data_preprocessor=_base_.lidar_statistics,  # as in the teacher; the student reads no LiDAR
    flips=None,
    camera_branch=dict(view_transform=dict(z_range=(-2, 2))))
