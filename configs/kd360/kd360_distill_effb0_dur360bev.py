# KD360-VoxelBEV distillation on Dur360BEV: the teacher's decoder output teaches student and
# assistant.
_base_ = ['./kd360_student_effb0_dur360bev.py']

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/kd360/kd360_teacher_r101-effb0_dur360bev.py',
    checkpoint='work_dirs/kd360_teacher_r101-effb0_dur360bev')
channel_wise_kl = dict(type='ChannelWiseKL', temperature=3.0)
gamma_student, gamma_assistant = 1.0, 1.0
tap = 'bev_encoder[-1]'  # stage 3 of the paper: the U-Net decoder's C channels

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    _delete_=True,
    type='Distiller',
    student=_base_.model,
    teacher=teacher,
    assistant=dict(
        type='AuxiliaryModule',
        fuser=dict(type='SGFM', channels=_base_.channels),
        bev_encoder=_base_.bev_encoder),
    terms=dict(
        student=dict(type='FeatureTerm', student=f'student.{tap}', teacher=f'teacher.{tap}',
                     criterion=channel_wise_kl, weight=gamma_student),
        assistant=dict(type='FeatureTerm', student=f'assistant.{tap}', teacher=f'teacher.{tap}',
                       criterion=channel_wise_kl, weight=gamma_assistant)))
train_dataloader = dict(dataset=dict(pipeline=_base_.fusion_pipeline))
