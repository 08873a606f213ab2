# BridgeTA's teacher: BEVFusion of cameras and LiDAR with the student's channels and decoder.
_base_ = ['./bridgeta_student.py']

model = dict(
    lidar_branch=dict(type='VoxelBranch', encoder=dict(type='SparseVoxelEncoder')),
    fuser=dict(type='ConvFuser', in_channels=(_base_.channels, 256),
               out_channels=_base_.channels))
