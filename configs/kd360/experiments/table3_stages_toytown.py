# Table 3 on toytown: distillation at each stage, with and without the auxiliary module (AM).
#   python tools/run_experiments.py configs/kd360/experiments/table3_stages_toytown.py
_base_ = ['../../_base_/experiments/toytown.py']

# Often changed ------------------------------------------------------------------------------------
gamma_student, gamma_assistant = 3.0, 1.0
gamma_light = 0.3  # the divergence of features starts eight times as high as that of logits
temperature = 3.0

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 3 on toytown: stages and auxiliary module'
paper = 'Dur360BEV, full size'

# Rarely -------------------------------------------------------------------------------------------
schedule = _base_.schedule
config = 'configs/kd360/kd360_{}_r18_500it_toytown.py'
decoder = 'bev_encoder[-1]'  # stage 3 of the paper
logits = 'head.segmentation'  # stage 3 of the release


def term(learner, teacher, gamma):
    return dict(type='FeatureTerm', student=learner, teacher=teacher, weight=gamma,
                criterion=dict(type='ChannelWiseKL', temperature=temperature))


def distilled(stage, student, teacher, am, figures=None, gamma=gamma_student):
    """A run that distils at one tap; unused parts of the assistant are removed."""
    terms = dict(student=term(f'student.{student}', f'teacher.{teacher}', gamma))
    if am:
        terms['assistant'] = term(f'assistant.{teacher}', f'teacher.{teacher}', gamma_assistant)
    options = {'model.terms': dict(terms, _delete_=True), **schedule}
    if am and stage != '3, logits':
        options['model.assistant.head'] = None
    if am and stage == '1':
        options['model.assistant.bev_encoder'] = None
    if am and stage == '2':
        options['model.assistant.bev_encoder.decode'] = False
    return dict(config=config.format('distill').replace('.py', '_am.py' if am else '.py'),
                teacher='teacher', options=options, paper=figures,
                columns=dict(stage=stage, γ=gamma, AM='with' if am else 'without'))


runs = dict(
    teacher=dict(config=config.format('teacher'), options=schedule, paper=(58.3, 64.3, 68.0)),
    student=dict(config=config.format('student'), options=schedule, paper=(32.2, 41.8, 58.4)),
    stage1=distilled('1', 'camera_branch', 'fuser', False, (20.96, 31.53, 47.05)),
    stage2=distilled('2', 'bev_encoder[2]', 'bev_encoder[2]', False, (20.58, 30.88, 49.48)),
    stage3=distilled('3', decoder, decoder, False, (39.37, 49.34, 64.21)),
    stage3_logits=distilled('3, logits', logits, logits, False),
    stage1_light=distilled('1', 'camera_branch', 'fuser', False, gamma=gamma_light),
    stage2_light=distilled('2', 'bev_encoder[2]', 'bev_encoder[2]', False, gamma=gamma_light),
    stage3_light=distilled('3', decoder, decoder, False, gamma=gamma_light),
    stage1_am=distilled('1', 'camera_branch', 'fuser', True, (30.50, 40.33, 51.33)),
    stage2_am=distilled('2', 'bev_encoder[2]', 'bev_encoder[2]', True, (32.22, 42.11, 56.42)),
    stage3_am=distilled('3', decoder, decoder, True, (41.24, 51.69, 67.08)),
    stage3_logits_am=distilled('3, logits', logits, logits, True))
