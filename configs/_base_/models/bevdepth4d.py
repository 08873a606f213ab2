# BEVDepth4D of BEVDet: ResNet-50, a gated depth net, one past frame at 0.75 to 2.25 s.
_base_ = ['./nuscenes_tasks.py']

# Sometimes ----------------------------------------------------------------------------------------
depth_bins = (1.0, 60.0, 1.0)
features = dict(x_range=(-51.2, 51.2), y_range=(-51.2, 51.2), z_range=(-10.0, 10.0),
                resolution=0.8)
channels = 64

# Rarely -------------------------------------------------------------------------------------------
resnet = dict(
    type='mmdet.ResNet',
    depth=50,
    out_indices=(2, 3),
    norm_eval=False,
    init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
view_transform = dict(
    type='LiftSplat', in_channels=512, channels=channels, depth=depth_bins, bins='center',
    depth_net=dict(type='BEVDetDepthNet'), **features)
bev_encoder = dict(
    type='BEVDecoder',
    backbone=dict(type='BEVDetResNet', in_channels=2 * channels),
    neck=dict(type='BEVDetFPN'))
depth_logits = 'model.camera_branch.view_transform.depth_net@0[1]'
model = dict(
    type='BEVModel',
    camera_branch=dict(
        type='TemporalCameraBranch',
        encoder=dict(type='ImageEncoder', backbone=resnet, neck=dict(type='SingleLevelFPN')),
        view_transform=view_transform,
        pre_process=dict(type='BEVDetResNet', in_channels=channels, channels=(channels, ),
                         strides=(1, ))),
    bev_encoder=bev_encoder,
    head=dict(type='CenterPointHead', in_channels=256, tasks=_base_.tasks, velocity='displacement'),
    aux_losses=dict(depth=dict(type='DepthLoss', tap=depth_logits, depth=depth_bins)))
