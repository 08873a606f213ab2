# BEVDepth without past images, tiny, fitted to one nuScenes keyframe.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/nuscenes_keyframe_det.py',
    '../_base_/models/bevdepth.py', '../_base_/schedules/keyframe.py'
]

# Rarely -------------------------------------------------------------------------------------------
resnet18 = dict(
    type='mmdet.ResNet',
    depth=18,
    base_channels=16,
    norm_eval=False)
model = dict(
    **_base_.det_model,
    camera_branch=dict(
        _delete_=True,
        type='CameraBranch',
        encoder=dict(
            type='ImageEncoder',
            backbone=resnet18,
            neck=dict(
                type='SECONDFPN', in_channels=(16, 32, 64, 128),
                upsample_strides=(0.25, 0.5, 1, 2), out_channels=(16, 16, 16, 16))),
        view_transform=dict(
            type='LiftSplat', in_channels=64, channels=32, depth=_base_.depth_bins, bins='center',
            depth_net=dict(type='MegviiDepthNet', mid_channels=64),
            **dict(_base_.features, z_range=(-7.0, 1.0)))),
    bev_encoder=dict(
        backbone=dict(in_channels=32, base_channels=32),
        neck=dict(in_channels=(32, 32, 64, 128), out_channels=(24, 24, 24, 24))),
    head=dict(in_channels=96, shared_channels=32),
    aux_losses=dict(depth=dict(tap='model.camera_branch.view_transform.depth_net[1]')))
default_hooks = dict(checkpoint=dict(save_best='det/mAP'))
