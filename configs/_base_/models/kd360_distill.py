# KD360-VoxelBEV: the teacher's decoder output is distilled to student and auxiliary module.
_base_ = ['./kd360_student.py']

# Often changed ------------------------------------------------------------------------------------
channel_wise_kl = dict(type='ChannelWiseKL', temperature=3.0)
gamma_student, gamma_assistant = 1.0, 1.0  # or 'learned'
tap = 'bev_encoder[-1]'  # stage 3 of the paper: the U-Net decoder's C channels

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    _delete_=True,
    type='Distiller',
    student=_base_.model,
    assistant=dict(
        type='AuxiliaryModule',
        fuser=dict(type='SGFM', channels=_base_.channels),
        bev_encoder=_base_.bev_encoder),
    terms=dict(
        student=dict(type='FeatureTerm', student=f'student.{tap}', teacher=f'teacher.{tap}',
                     criterion=channel_wise_kl, weight=gamma_student),
        assistant=dict(type='FeatureTerm', student=f'assistant.{tap}', teacher=f'teacher.{tap}',
                       criterion=channel_wise_kl, weight=gamma_assistant)))
