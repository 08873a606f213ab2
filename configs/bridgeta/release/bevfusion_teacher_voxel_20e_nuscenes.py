# The lidar-only-seg model of BEVFusion's release.
_base_ = [
    '../../_base_/datasets/nuscenes_map_release.py',
    '../../_base_/models/bevfusion_lidar.py', '../../_base_/schedules/bevfusion_20e.py'
]

batch_size = 4  # of each GPU; 8 GPUs
model = _base_.map_model
train_dataloader = dict(
    batch_size=batch_size, dataset=dict(dataset=dict(pipeline=_base_.lidar_pipeline)))
val_dataloader = dict(batch_size=batch_size, dataset=dict(pipeline=_base_.lidar_test_pipeline))
test_dataloader = val_dataloader
