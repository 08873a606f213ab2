# BEVDepth of Megvii: ResNet-50, 256 x 704, two key frames, cells of 0.8 m.
_base_ = [
    '../_base_/datasets/nuscenes_det_ego.py', '../_base_/models/bevdepth.py',
    '../_base_/schedules/bevdepth_24e.py'
]

model = _base_.det_model
train_dataloader = dict(batch_size=8, num_workers=4)
