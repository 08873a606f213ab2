# BEVDepth4D, tiny, on toytown in nuScenes' layout.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown_nuscenes_det.py',
    '../_base_/models/bevdepth4d_tiny.py', '../_base_/schedules/toytown.py'
]

model = _base_.det_model
default_hooks = dict(checkpoint=dict(save_best='det/mAP'))
