# KD360-VoxelBEV LiDAR-only teacher, tiny: range, ambient, intensity.
_base_ = ['./kd360_teacher_r18_500it_toytown.py']

model = dict(camera_branch=None, fuser=None)
pipeline = [_base_.load_scan, _base_.lidar_image, _base_.targets, dict(type='PackBEVInputs')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader
