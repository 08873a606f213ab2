# KD360-VoxelBEV teacher on Dur360BEV.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/dur360bev.py',
    '../_base_/models/kd360_teacher.py', '../_base_/schedules/kd360_12k.py'
]

model = dict(grid=_base_.grid)
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
test_dataloader = val_dataloader
