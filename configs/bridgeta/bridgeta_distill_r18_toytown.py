# BridgeTA, tiny, on toytown in nuScenes' layout.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown_nuscenes.py',
    '../_base_/models/bridgeta_distill_tiny.py', '../_base_/schedules/toytown.py'
]

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/bridgeta/bridgeta_teacher_r18-voxel_toytown.py',
    checkpoint='work_dirs/bridgeta_teacher_r18-voxel_toytown')

# Rarely -------------------------------------------------------------------------------------------
head = dict(grid=_base_.grid, classes=_base_.map_classes)
model = dict(
    student=dict(
        grid=_base_.grid,
        data_preprocessor=dict(type='BEVDataPreprocessor', **_base_.statistics), head=head),
    teacher=teacher,
    assistant=dict(head=head))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
default_hooks = dict(checkpoint=dict(save_best='map/mean'))
