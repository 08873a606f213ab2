# Figure 8: divergence (KL) or affinity distillation (AD) at each stage.
#   python tools/run_experiments.py configs/kd360/experiments/fig8_losses.py

# Often changed ------------------------------------------------------------------------------------
seeds = (0, )

# Sometimes ----------------------------------------------------------------------------------------
title = 'Figure 8: KL and AD at the three stages'
metrics = ('bev/IoU100', 'bev/IoU50', 'bev/IoU20')
baseline = 'student'

# Rarely -------------------------------------------------------------------------------------------
config = 'configs/kd360/kd360_{}_12k_dur360bev{}.py'


def distilled(stage, variant, loss, criterion):
    options = {'model.assistant': None, 'model.terms.assistant': None,
               'model.terms.student.criterion': dict(criterion, _delete_=True)}
    return dict(config=config.format('distill_effb0', variant), teacher='teacher',
                options=options, columns=dict(stage=stage, loss=loss))


kl = dict(type='ChannelWiseKL', temperature=3.0)
coarse, fine = (dict(type='WindowAffinity', window=window) for window in (25, 100))
runs = dict(
    teacher=dict(config=config.format('teacher_r101-effb0', '')),
    student=dict(config=config.format('student_effb0', '')),
    stage1_kl=distilled(1, '_stage1', 'KL', kl),
    stage1_ad=distilled(1, '_stage1', 'AD', fine),
    stage2_kl=distilled(2, '_stage2', 'KL', kl),
    stage2_ad=distilled(2, '_stage2', 'AD', coarse),
    stage3_kl=distilled(3, '', 'KL', kl),
    stage3_ad=distilled(3, '', 'AD', fine))
