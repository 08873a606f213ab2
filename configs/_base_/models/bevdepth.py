# Megvii's BEVDepth: ResNet-50, a depth net with squeeze-and-excitation, two key frames.
_base_ = ['./nuscenes_tasks.py']

# Sometimes ----------------------------------------------------------------------------------------
num_past = 1  # key frames before the newest
depth_bins = (2.0, 58.0, 0.5)
features = dict(x_range=(-51.2, 51.2), y_range=(-51.2, 51.2), z_range=(-5.0, 3.0), resolution=0.8)
channels = 80

# Rarely -------------------------------------------------------------------------------------------
resnet = dict(
    type='mmdet.ResNet',
    depth=50,
    frozen_stages=0,
    norm_eval=False,
    init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
image_neck = dict(
    type='SECONDFPN',
    in_channels=(256, 512, 1024, 2048),
    upsample_strides=(0.25, 0.5, 1, 2),
    out_channels=(128, 128, 128, 128))
view_transform = dict(
    type='LiftSplat', in_channels=512, channels=channels, depth=depth_bins, bins='center',
    depth_net=dict(type='MegviiDepthNet'), **features)
bev_encoder = dict(
    type='BEVDecoder',
    backbone=dict(type='BEVResNet', in_channels=channels * (1 + num_past)),
    neck=dict(
        type='SECONDFPN',
        in_channels=(channels * (1 + num_past), 160, 320, 640),
        upsample_strides=(1, 2, 4, 8),
        out_channels=(64, 64, 64, 64)))
depth_logits = 'model.camera_branch.view_transform.depth_net@0[1]'
model = dict(
    type='BEVModel',
    camera_branch=dict(
        type='TemporalCameraBranch',
        num_past=num_past,
        encoder=dict(type='ImageEncoder', backbone=resnet, neck=image_neck),
        view_transform=view_transform),
    bev_encoder=bev_encoder,
    head=dict(type='CenterPointHead', in_channels=256, tasks=_base_.tasks),
    aux_losses=dict(depth=dict(type='DepthLoss', tap=depth_logits, depth=depth_bins)))
