# BridgeTA on nuScenes.
_base_ = [
    '../_base_/datasets/nuscenes_map.py',
    '../_base_/models/bridgeta_distill.py', '../_base_/schedules/bridgeta_20e.py'
]

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/bridgeta/bridgeta_teacher_swint-voxel_20e_nuscenes.py',
    checkpoint='work_dirs/bridgeta_teacher_swint-voxel_20e_nuscenes')

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    student=_base_.map_model, teacher=teacher, assistant=dict(head=_base_.map_model.head))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
