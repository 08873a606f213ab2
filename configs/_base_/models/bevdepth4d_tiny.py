# BEVDepth4D at a size that trains on two CPU cores: ResNet-18 with 16 channels.
_base_ = ['./bevdepth4d.py']

# Sometimes ----------------------------------------------------------------------------------------
depth_bins = (1.0, 36.0, 1.0)
features = dict(x_range=(-25.6, 25.6), y_range=(-25.6, 25.6), z_range=(-10.0, 10.0),
                resolution=0.8)
channels = 24
tasks = [['car'], ['truck', 'bus'], ['pedestrian']]

# Rarely -------------------------------------------------------------------------------------------
resnet18 = dict(
    type='mmdet.ResNet',
    depth=18,
    base_channels=16,
    out_indices=(1, 2, 3),
    norm_eval=False)
view_transform = dict(
    in_channels=48, channels=channels, depth=depth_bins, depth_net=dict(mid_channels=48),
    **features)
model = dict(
    camera_branch=dict(
        encoder=dict(backbone=dict(_delete_=True, **resnet18),
                     neck=dict(in_channels=(32, 64, 128), out_channels=48)),
        view_transform=view_transform,
        pre_process=dict(in_channels=channels, channels=(channels, ))),
    bev_encoder=dict(
        backbone=dict(in_channels=2 * channels, channels=(48, 64, 96)),
        neck=dict(in_channels=(96, 48), mid_channels=64, out_channels=64)),
    head=dict(in_channels=64, shared_channels=32, tasks=tasks),
    aux_losses=dict(depth=dict(depth=depth_bins)))
