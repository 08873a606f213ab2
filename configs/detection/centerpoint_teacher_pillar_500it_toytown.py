# CenterPoint with pillars, tiny, on toytown in nuScenes' layout: a LiDAR teacher.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown_nuscenes_det.py',
    '../_base_/models/centerpoint_pillar_tiny.py', '../_base_/schedules/toytown.py'
]

model = _base_.det_model
train_dataloader = dict(dataset=dict(pipeline=_base_.lidar_pipeline, image_table=None))
val_dataloader = dict(dataset=dict(pipeline=_base_.lidar_test_pipeline, image_table=None))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(save_best='det/mAP'))
