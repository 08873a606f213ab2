# The teacher at a size that trains on two CPU cores.
_base_ = ['./kd360_student_tiny.py']

# Sometimes ----------------------------------------------------------------------------------------
lidar_channels = 3  # range, ambient, intensity
lidar_heights = dict(z_range=(-2, 2), num_levels=4, levels='+z')

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    lidar_branch=dict(
        type='LiDARImageBranch',
        encoder=dict(
            type='LiDARImageEncoder',
            in_channels=lidar_channels,
            backbone=_base_.resnet18,
            neck=dict(type='UpsampleConcat', in_channels=(32, 64), mid_channels=48,
                      out_channels=_base_.channels)),
        view_transform=dict(
            type='VoxelPulling', occupied=True, **lidar_heights,
            compressor=dict(type='HeightCompressor', in_channels=4 * _base_.channels,
                            out_channels=_base_.channels))),
    fuser=dict(type='SGFM', channels=_base_.channels))
