# KD360-VoxelBEV distillation, tiny, on one nuScenes keyframe; terms as on toytown.
_base_ = ['./kd360_student_r18_keyframe.py']

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/kd360/kd360_teacher_r18_keyframe.py',
    checkpoint='work_dirs/keyframe/teacher')  # where tools/fit_keyframe.py leaves it
channel_wise_kl = dict(type='ChannelWiseKL', temperature=3.0)
gamma_student = 3.0
tap = 'head.segmentation'

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    _delete_=True,
    type='Distiller',
    student=_base_.model,
    teacher=teacher,
    terms=dict(
        student=dict(type='FeatureTerm', student=f'student.{tap}', teacher=f'teacher.{tap}',
                     criterion=channel_wise_kl, weight=gamma_student)))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
