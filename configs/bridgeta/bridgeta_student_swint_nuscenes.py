# BridgeTA's student alone, BEVFusion-C, with the paper's schedule.
_base_ = [
    '../_base_/datasets/nuscenes_map.py',
    '../_base_/models/bridgeta_student.py', '../_base_/schedules/bridgeta_20e.py'
]

model = dict(
    grid=_base_.grid,
    data_preprocessor=dict(type='BEVDataPreprocessor', **_base_.statistics),
    head=dict(grid=_base_.grid, classes=_base_.map_classes))
