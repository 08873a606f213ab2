# Figure 8 on toytown: divergence (KL) or affinity distillation (AD) at each stage.
#   python tools/run_experiments.py configs/kd360/experiments/fig8_toytown.py
_base_ = ['../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'Figure 8 on toytown: KL and AD at the three stages'

# Rarely -------------------------------------------------------------------------------------------
schedule = _base_.schedule
config = 'configs/kd360/kd360_{}_r18_500it_toytown{}.py'


def distilled(stage, variant, loss, criterion):
    options = {'model.assistant': None, 'model.terms.assistant': None,
               'model.terms.student.criterion': dict(criterion, _delete_=True)}
    return dict(config=config.format('distill', variant), teacher='teacher',
                options={**options, **schedule}, columns=dict(stage=stage, loss=loss))


kl = dict(type='ChannelWiseKL', temperature=3.0)
coarse, fine = (dict(type='WindowAffinity', window=window) for window in (13, 50))
runs = dict(
    teacher=dict(config=config.format('teacher', ''), options=schedule),
    student=dict(config=config.format('student', ''), options=schedule),
    stage1_kl=distilled(1, '_stage1', 'KL', kl),
    stage1_ad=distilled(1, '_stage1', 'AD', fine),
    stage2_kl=distilled(2, '_stage2', 'KL', kl),
    stage2_ad=distilled(2, '_stage2', 'AD', coarse),
    stage3_kl=distilled(3, '_stage3', 'KL', kl),
    stage3_ad=distilled(3, '_stage3', 'AD', fine))
