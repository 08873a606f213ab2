# CenterPoint with pillars of 0.4 m, tiny, fitted to one nuScenes keyframe.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/nuscenes_keyframe_det.py',
    '../_base_/models/centerpoint_pillar.py', '../_base_/schedules/keyframe.py'
]

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    **_base_.det_model,
    lidar_branch=dict(in_channels=4, pillar_size=(0.4, 0.4), channels=32),
    bev_encoder=dict(
        backbone=dict(in_channels=32, out_channels=(32, 64, 128), layer_nums=(1, 2, 2)),
        neck=dict(in_channels=(32, 64, 128), out_channels=(32, 32, 32),
                  upsample_strides=(1, 2, 4))),
    head=dict(in_channels=96, shared_channels=32))
train_dataloader = dict(dataset=dict(pipeline=_base_.lidar_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.lidar_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(save_best='det/mAP'))
