# BridgeTA's teacher, tiny, on toytown in nuScenes' layout.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown_nuscenes.py',
    '../_base_/models/bridgeta_teacher_tiny.py', '../_base_/schedules/toytown.py'
]

model = _base_.map_model
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fusion_test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(save_best='map/mean'))
