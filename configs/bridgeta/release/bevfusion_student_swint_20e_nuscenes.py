# The camera-only-seg model of BEVFusion's release.
_base_ = [
    '../../_base_/datasets/nuscenes_map_release.py',
    '../../_base_/models/bridgeta_student.py', '../../_base_/schedules/bevfusion_20e.py'
]

batch_size = 4  # of each GPU; 8 GPUs
model = dict(
    **_base_.map_model,
    camera_branch=dict(view_transform=dict(rounding='trunc', pixel='corner')))
train_dataloader = dict(
    batch_size=batch_size, dataset=dict(dataset=dict(pipeline=_base_.camera_pipeline)))
val_dataloader = dict(batch_size=batch_size, dataset=dict(pipeline=_base_.camera_test_pipeline))
test_dataloader = val_dataloader
