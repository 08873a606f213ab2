# Distillation as in the authors' release: the teacher's logits are distilled ("stage 3").
_base_ = ['./kd360_student_effb0_12k_dur360bev.py']

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/kd360/release/kd360_teacher_r101-effb0_12k_dur360bev.py',
    checkpoint='work_dirs/kd360_teacher_release.pth')
channel_wise_kl = dict(type='ChannelWiseKL', temperature=3.0)
tap = 'head.segmentation'

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    _delete_=True,
    type='Distiller',
    student=_base_.model,
    teacher=teacher,
    terms=dict(
        student=dict(type='FeatureTerm', student=f'student.{tap}', teacher=f'teacher.{tap}',
                     criterion=channel_wise_kl)))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
