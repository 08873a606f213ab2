# BridgeTA's student alone, tiny, on toytown in nuScenes' layout.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown_nuscenes.py',
    '../_base_/models/bridgeta_student_tiny.py', '../_base_/schedules/toytown.py'
]

model = dict(
    grid=_base_.grid,
    data_preprocessor=dict(type='BEVDataPreprocessor', **_base_.statistics),
    head=dict(grid=_base_.grid, classes=_base_.map_classes))
default_hooks = dict(checkpoint=dict(save_best='map/mean'))
