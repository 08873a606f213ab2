# CenterPoint with dynamic pillars of 0.2 m, ten scans: the teacher of DualDistill.
_base_ = [
    '../_base_/datasets/nuscenes_det_lidar.py', '../_base_/models/centerpoint_pillar.py',
    '../_base_/schedules/centerpoint_20e.py'
]

model = _base_.det_model
