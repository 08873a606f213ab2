# BridgeTA, tiny, on toytown in nuScenes' layout.
_base_ = [
    '../_base_/default_runtime.py', '../_base_/datasets/toytown_nuscenes.py',
    '../_base_/models/bridgeta_distill_tiny.py', '../_base_/schedules/toytown.py'
]

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/bridgeta/bridgeta_teacher_r18-voxel_500it_toytown.py',
    checkpoint='work_dirs/bridgeta_teacher_r18-voxel_500it_toytown')

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    student=_base_.map_model, teacher=teacher, assistant=dict(head=_base_.map_model.head))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
default_hooks = dict(checkpoint=dict(save_best='map/mean'))
