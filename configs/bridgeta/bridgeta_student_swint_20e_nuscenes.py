# BridgeTA's student alone, BEVFusion-C, with the paper's schedule.
_base_ = [
    '../_base_/datasets/nuscenes_map.py',
    '../_base_/models/bridgeta_student.py', '../_base_/schedules/bridgeta_20e.py'
]

model = _base_.map_model
