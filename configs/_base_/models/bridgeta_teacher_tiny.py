# BridgeTA's teacher at a size that trains on two CPU cores.
_base_ = ['./bridgeta_student_tiny.py']

# Sometimes ----------------------------------------------------------------------------------------
lidar_channels = 48  # 24 for each of two height levels

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    lidar_branch=dict(
        type='VoxelBranch',
        encoder=dict(type='SparseVoxelEncoder', channels=(8, 16, 24), out_channels=24,
                     paddings=(1, (1, 1, 0)), blocks=1),
        voxel_size=(0.5, 0.5, 0.4),
        point_range=(-32, -32, -5, 32, 32, 3)),
    fuser=dict(type='ConvFuser', in_channels=(_base_.channels, lidar_channels),
               out_channels=_base_.channels))
