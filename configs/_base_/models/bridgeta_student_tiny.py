# BridgeTA's student at a size that trains on two CPU cores: ResNet-18 with 16 channels.

# Sometimes ----------------------------------------------------------------------------------------
features = dict(x_range=(-32, 32), y_range=(-32, 32))  # 1 m cells; 2 m after BEVDownsample
channels = 24

# Rarely -------------------------------------------------------------------------------------------
resnet18 = dict(
    type='mmdet.ResNet',
    depth=18,
    base_channels=16,
    out_indices=(1, 2, 3),
    norm_eval=False)
decoder = dict(
    type='BEVDecoder',
    backbone=dict(type='GeneralizedResNet', in_channels=channels, channels=(32, 48, 64)),
    neck=dict(type='LSSFPN', in_channels=(64, 32), out_channels=48))
head = dict(type='BEVMapHead', in_channels=48, source=dict(features, resolution=2.0))
model = dict(
    type='BEVModel',
    camera_branch=dict(
        type='CameraBranch',
        encoder=dict(
            type='ImageEncoder',
            backbone=resnet18,
            neck=dict(type='GeneralizedLSSFPN', in_channels=(32, 64, 128), out_channels=32)),
        view_transform=dict(
            type='LiftSplat', in_channels=32, channels=channels, depth=(1, 45, 1), resolution=1.0,
            **features, compressor=dict(type='BEVDownsample', channels=channels))),
    bev_encoder=decoder,
    head=head)
