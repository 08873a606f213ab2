# Megvii's BEVDepth as released: ResNet-50, two key frames, 128 x 128 cells.
_base_ = [
    '../../_base_/datasets/nuscenes_det_ego_release.py',
    '../../_base_/models/bevdepth_release.py', '../../_base_/schedules/bevdepth_24e.py'
]

model = _base_.det_model
train_dataloader = dict(batch_size=8, num_workers=4)
