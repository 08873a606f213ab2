# As kd360_distill_effb0_12k_dur360bev.py, with the auxiliary module. The authors released its
# network but not its training; its term here is Eq. (7) of the paper at stage 3 of the release.
_base_ = ['./kd360_distill_effb0_12k_dur360bev.py']

# Often changed ------------------------------------------------------------------------------------
gamma_assistant = 1.0

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    student=dict(flips=dict(undo_late=False)),  # the module fuses two maps of the same frame
    assistant=dict(
        type='AuxiliaryModule',
        fuser=_base_.release_fuser,
        bev_encoder=_base_.bev_encoder,
        head=dict(**_base_.head, tasks=('segmentation', ), learn_weights=False)),
    terms=dict(
        assistant=dict(type='FeatureTerm', student=f'assistant.{_base_.tap}',
                       teacher=f'teacher.{_base_.tap}', criterion=_base_.channel_wise_kl,
                       weight=gamma_assistant)))
