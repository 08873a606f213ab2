# KD360-VoxelBEV distillation, tiny, on toytown: the teacher's segmentation logits are distilled.
_base_ = ['./kd360_student_r18_500it_toytown.py']

# Often changed ------------------------------------------------------------------------------------
teacher = dict(
    config='configs/kd360/kd360_teacher_r18_500it_toytown.py',
    checkpoint='work_dirs/kd360_teacher_r18_500it_toytown')
channel_wise_kl = dict(type='ChannelWiseKL', temperature=3.0)
gamma_student = 3.0
tap = 'head.segmentation'  # stage 3 of the release; the paper's is bev_encoder[-1]

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
