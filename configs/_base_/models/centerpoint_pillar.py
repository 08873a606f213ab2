# CenterPoint with dynamic pillars of 0.2 m: PointPillars' encoder, SECOND, SECONDFPN.
_base_ = ['./nuscenes_tasks.py']

# Sometimes ----------------------------------------------------------------------------------------
point_range = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
point_values = 5  # x, y, z, intensity, age

# Rarely -------------------------------------------------------------------------------------------
norm = dict(type='BN', eps=1e-3, momentum=0.01)
bev_encoder = dict(
    type='BEVDecoder',
    backbone=dict(
        type='SECOND',
        in_channels=64,
        out_channels=(64, 128, 256),
        layer_nums=(3, 5, 5),
        layer_strides=(2, 2, 2),
        norm_cfg=norm),
    neck=dict(
        type='SECONDFPN',
        in_channels=(64, 128, 256),
        out_channels=(128, 128, 128),
        upsample_strides=(0.5, 1, 2),
        use_conv_for_no_stride=True,
        norm_cfg=norm))
model = dict(
    type='BEVModel',
    lidar_branch=dict(type='PillarBranch', in_channels=point_values, point_range=point_range),
    bev_encoder=bev_encoder,
    head=dict(type='CenterPointHead', in_channels=384, tasks=_base_.tasks))
