# As kd360_distill_r18_500it_toytown.py, with the auxiliary module.
_base_ = ['./kd360_distill_r18_500it_toytown.py']

# Often changed ------------------------------------------------------------------------------------
gamma_assistant = 1.0

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    init_from_teacher=['assistant'],
    assistant=dict(
        type='AuxiliaryModule',
        fuser=dict(type='SGFM', channels=_base_.channels),
        bev_encoder=_base_.bev_encoder,
        head=dict(**_base_.head, tasks=('segmentation', ), learn_weights=False)),
    terms=dict(
        assistant=dict(type='FeatureTerm', student=f'assistant.{_base_.tap}',
                       teacher=f'teacher.{_base_.tap}', criterion=_base_.channel_wise_kl,
                       weight=gamma_assistant)))
