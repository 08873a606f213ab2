# Megvii's BEVDepth as released, with depth refinement and balanced classes, 20 epochs.
_base_ = ['./bevdepth_student_r50_24e_nuscenes.py']

model = dict(camera_branch=dict(view_transform=dict(refine=dict(type='DepthRefinement'))))
train_dataloader = dict(
    dataset=dict(_delete_=True, type='CBGSBEVDataset', dataset=_base_.train_dataloader.dataset))
param_scheduler = [
    dict(type='MultiStepLR', milestones=(16, 19), gamma=0.1, by_epoch=True, begin=0, end=20)
]
train_cfg = dict(max_epochs=20)
