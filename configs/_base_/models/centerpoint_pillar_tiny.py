# CenterPoint with pillars of 0.4 m at a size that trains on two CPU cores.
_base_ = ['./centerpoint_pillar.py']

# Sometimes ----------------------------------------------------------------------------------------
point_range = (-25.6, -25.6, -5.0, 25.6, 25.6, 3.0)
tasks = [['car'], ['truck', 'bus'], ['pedestrian']]

# Rarely -------------------------------------------------------------------------------------------
bev_encoder = dict(
    backbone=dict(in_channels=24, out_channels=(32, 48, 64), layer_nums=(1, 2, 2)),
    neck=dict(in_channels=(32, 48, 64), out_channels=(32, 32, 32), upsample_strides=(1, 2, 4)))
model = dict(
    lidar_branch=dict(pillar_size=(0.4, 0.4), channels=24, point_range=point_range),
    bev_encoder=bev_encoder,
    head=dict(in_channels=96, shared_channels=32, tasks=tasks))
