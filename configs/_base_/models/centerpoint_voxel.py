# CenterPoint with voxels of 0.1 x 0.1 x 0.2 m: SECOND's sparse encoder, SECOND, SECONDFPN.
_base_ = ['./centerpoint_pillar.py']

# Rarely -------------------------------------------------------------------------------------------
bev_encoder = dict(
    _delete_=True,
    type='BEVDecoder',
    backbone=dict(
        type='SECOND',
        in_channels=256,
        out_channels=(128, 256),
        layer_nums=(5, 5),
        layer_strides=(1, 2),
        norm_cfg=_base_.norm),
    neck=dict(
        type='SECONDFPN',
        in_channels=(128, 256),
        out_channels=(256, 256),
        upsample_strides=(1, 2),
        use_conv_for_no_stride=True,
        norm_cfg=_base_.norm))
model = dict(
    lidar_branch=dict(
        _delete_=True, type='VoxelBranch', point_range=_base_.point_range,
        encoder=dict(type='SparseVoxelEncoder', in_channels=_base_.point_values)),
    bev_encoder=bev_encoder,
    head=dict(in_channels=512))
