# BridgeTA's teacher: cameras and LiDAR, channels as in the student, trained like BEVFusion.
_base_ = [
    '../_base_/datasets/nuscenes_map.py',
    '../_base_/models/bridgeta_teacher.py', '../_base_/schedules/bevfusion_20e.py'
]

batch_size = 4  # of each GPU; 8 GPUs
model = _base_.map_model
train_dataloader = dict(batch_size=batch_size, dataset=dict(pipeline=_base_.fusion_pipeline))
val_dataloader = dict(batch_size=batch_size, dataset=dict(pipeline=_base_.fusion_test_pipeline))
test_dataloader = val_dataloader
