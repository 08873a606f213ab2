# CenterPoint with voxels of 0.1 m, ten scans.
_base_ = [
    '../_base_/datasets/nuscenes_det_lidar.py', '../_base_/models/centerpoint_voxel.py',
    '../_base_/schedules/centerpoint_20e.py'
]

model = _base_.det_model
