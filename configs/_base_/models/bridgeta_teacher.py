# BridgeTA's teacher: BEVFusion with cameras and LiDAR, channels and decoder as in the student.
_base_ = ['./bridgeta_student.py']

model = dict(
    lidar_branch=dict(type='VoxelBranch', encoder=dict(type='SparseVoxelEncoder')),
    fuser=dict(type='ConvFuser', in_channels=(_base_.channels, 256),
               out_channels=_base_.channels))
