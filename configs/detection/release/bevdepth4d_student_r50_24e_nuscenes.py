# BEVDet's bevdepth4d-r50 as released.
_base_ = [
    '../../_base_/datasets/nuscenes_det_release.py',
    '../../_base_/models/bevdepth4d_release.py', '../../_base_/schedules/bevdet_24e.py'
]

model = _base_.det_model
train_dataloader = dict(
    batch_size=8, num_workers=4,
    dataset=dict(_delete_=True, type='CBGSBEVDataset', dataset=_base_.train_dataloader.dataset))
