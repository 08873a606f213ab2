# BEVFusion as released for map segmentation: cameras and LiDAR, SECOND on the BEV map.
_base_ = ['./bridgeta_teacher.py']

# Rarely -------------------------------------------------------------------------------------------
norm = dict(type='BN', eps=1e-3, momentum=0.01)
second = dict(
    _delete_=True,
    type='BEVDecoder',
    backbone=dict(
        type='SECOND', in_channels=256, out_channels=[128, 256], layer_nums=[5, 5],
        layer_strides=[1, 2], norm_cfg=norm, conv_cfg=dict(type='Conv2d', bias=False)),
    neck=dict(
        type='SECONDFPN', in_channels=[128, 256], out_channels=[256, 256],
        upsample_strides=[1, 2], norm_cfg=norm, upsample_cfg=dict(type='deconv', bias=False),
        use_conv_for_no_stride=True))
model = dict(
    fuser=dict(out_channels=256),
    bev_encoder=second,
    head=dict(in_channels=512))
