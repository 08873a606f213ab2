# KD360-VoxelBEV distillation on Dur360BEV: stage 3, with the auxiliary module.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/dur360bev.py',
    '../_base_/models/kd360_distill.py', '../_base_/schedules/kd360_12k.py'
]

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/kd360/kd360_teacher_r101-effb0_12k_dur360bev.py',
    checkpoint='work_dirs/kd360_teacher_r101-effb0_12k_dur360bev')

# Rarely -------------------------------------------------------------------------------------------
model = dict(student=dict(grid=_base_.grid), teacher=teacher)
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
