# KD360-VoxelBEV teacher, tiny, on toytown.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown.py',
    '../_base_/models/kd360_teacher_tiny.py', '../_base_/schedules/toytown.py'
]

model = dict(grid=_base_.grid)
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
test_dataloader = val_dataloader
