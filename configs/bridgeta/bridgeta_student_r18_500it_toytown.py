# BridgeTA's student alone, tiny, on toytown in nuScenes' layout.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown_nuscenes.py',
    '../_base_/models/bridgeta_student_tiny.py', '../_base_/schedules/toytown.py'
]

model = _base_.map_model
default_hooks = dict(checkpoint=dict(save_best='map/mean'))
