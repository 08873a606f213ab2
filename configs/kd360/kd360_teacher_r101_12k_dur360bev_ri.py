# KD360-VoxelBEV LiDAR-only teacher: range and intensity.
_base_ = ['./kd360_teacher_r101_12k_dur360bev_rai.py']

model = dict(
    data_preprocessor=dict(lidar_mean=(0.2941, 0.3148), lidar_std=(0.3561, 0.3749)),
    lidar_branch=dict(encoder=dict(in_channels=2)))
lidar_image = dict(_base_.lidar_image, channels=('range', 'intensity'))
pipeline = [_base_.load_scan, lidar_image, _base_.targets, dict(type='PackBEVInputs')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader
