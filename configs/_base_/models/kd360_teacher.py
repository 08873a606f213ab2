# KD360-VoxelBEV teacher: the student's camera branch, a ResNet-101 on the LiDAR image, SGFM.
_base_ = ['./kd360_student.py']

# Sometimes ----------------------------------------------------------------------------------------
lidar_channels = 3  # range, ambient, intensity
lidar_heights = dict(z_range=(-2, 2), num_levels=8, levels='+z')
resnet101 = dict(
    type='mmdet.ResNet',
    depth=101,
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(1, 2),
    norm_eval=False,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://download.pytorch.org/models/resnet101-cd907fc2.pth'))

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    flips=None,
    lidar_branch=dict(
        type='LiDARImageBranch',
        encoder=dict(
            type='LiDARImageEncoder',
            in_channels=lidar_channels,
            backbone=resnet101,
            neck=dict(type='UpsampleConcat', in_channels=(512, 1024), mid_channels=512,
                      out_channels=_base_.channels)),
        view_transform=dict(
            type='VoxelPulling', occupied=True, **lidar_heights,
            compressor=dict(type='HeightCompressor', in_channels=8 * _base_.channels,
                            out_channels=_base_.channels))),
    fuser=dict(type='SGFM', channels=_base_.channels))
