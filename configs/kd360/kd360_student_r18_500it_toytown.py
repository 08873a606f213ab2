# KD360-VoxelBEV student, tiny, on toytown.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown.py',
    '../_base_/models/kd360_student_tiny.py', '../_base_/schedules/toytown.py'
]

model = dict(grid=_base_.grid)
