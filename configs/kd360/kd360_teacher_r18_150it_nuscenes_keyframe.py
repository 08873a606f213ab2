# KD360-VoxelBEV teacher, tiny, fitted to one nuScenes keyframe.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/nuscenes_keyframe.py',
    '../_base_/models/kd360_teacher_tiny.py', '../_base_/schedules/keyframe.py'
]

# Often changed ------------------------------------------------------------------------------------
max_iters = 150  # half of the student's: the scan contains the positions of the objects

# Rarely -------------------------------------------------------------------------------------------
# The road is at z = -1.84 m; the voxels cover the heights from there to above a bus.
model = dict(
    grid=_base_.grid,
    data_preprocessor=_base_.lidar_statistics,
    camera_branch=dict(view_transform=dict(z_range=(-2, 2))),
    lidar_branch=dict(
        encoder=dict(in_channels=2),  # range, intensity
        view_transform=dict(z_range=(-2, 2))))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='OneCycleLR', eta_max=_base_.lr, total_steps=max_iters + 1, pct_start=0.1,
         anneal_strategy='linear', by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 3)
