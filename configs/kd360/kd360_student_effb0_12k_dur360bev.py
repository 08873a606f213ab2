# KD360-VoxelBEV student on Dur360BEV.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/dur360bev.py',
    '../_base_/models/kd360_student.py', '../_base_/schedules/kd360_12k.py'
]

model = dict(grid=_base_.grid)
