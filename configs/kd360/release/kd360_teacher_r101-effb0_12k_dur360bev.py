# The teacher as in the authors' release. Its training was not released; here it is trained with the
# schedule of the release's distillation.
_base_ = [
    '../../_base_/default_runtime.py', '../../_base_/datasets/dur360bev_release.py',
    '../../_base_/models/kd360_teacher.py', '../../_base_/models/kd360_release.py',
    '../../_base_/schedules/kd360_release.py'
]

model = dict(
    grid=_base_.grid,
    camera_branch=dict(
        encoder=dict(backbone=dict(fixed_padding=True)), view_transform=_base_.release_view),
    lidar_branch=dict(view_transform=_base_.release_view),
    fuser=_base_.release_fuser,
    head=_base_.release_head)
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
test_dataloader = val_dataloader
