# BridgeTA on nuScenes.
_base_ = [
    '../_base_/datasets/nuscenes_map.py',
    '../_base_/models/bridgeta_distill.py', '../_base_/schedules/bridgeta_20e.py'
]

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/bridgeta/bridgeta_teacher_swint-voxel_nuscenes.py',
    checkpoint='work_dirs/bridgeta_teacher_swint-voxel_nuscenes')

# Rarely -------------------------------------------------------------------------------------------
head = dict(grid=_base_.grid, classes=_base_.map_classes)
model = dict(
    student=dict(
        grid=_base_.grid,
        data_preprocessor=dict(type='BEVDataPreprocessor', **_base_.statistics), head=head),
    teacher=teacher,
    assistant=dict(head=head))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
