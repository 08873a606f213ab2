# KD360-VoxelBEV student on nuScenes.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/nuscenes.py',
    '../_base_/models/kd360_student.py', '../_base_/schedules/kd360_12k.py'
]

model = dict(grid=_base_.grid)
