# KD360-VoxelBEV teacher on nuScenes: a LiDAR image of range and intensity.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/nuscenes.py',
    '../_base_/models/kd360_teacher.py', '../_base_/schedules/kd360_12k.py'
]

model = dict(
    grid=_base_.grid,
    data_preprocessor=_base_.lidar_statistics,
    lidar_branch=dict(encoder=dict(in_channels=2)))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
test_dataloader = val_dataloader
