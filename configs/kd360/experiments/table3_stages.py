# Table 3: distillation at each stage, with and without the auxiliary module (AM).
#   python tools/run_experiments.py configs/kd360/experiments/table3_stages.py

# Often changed ------------------------------------------------------------------------------------
seeds = (0, )

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 3: stages and auxiliary module'
metrics = ('bev/IoU100', 'bev/IoU50', 'bev/IoU20')
paper = 'Dur360BEV, extended'
baseline = 'student'

# Rarely -------------------------------------------------------------------------------------------
config = 'configs/kd360/kd360_{}_12k_dur360bev{}.py'
without_am = {'model.assistant': None, 'model.terms.assistant': None}


def distilled(stage, variant, am, figures):
    return dict(config=config.format('distill_effb0', variant), options={} if am else without_am,
                teacher='teacher', paper=figures,
                columns=dict(stage=stage, AM='with' if am else 'without'))


runs = dict(
    teacher=dict(config=config.format('teacher_r101-effb0', ''), paper=(58.3, 64.3, 68.0)),
    student=dict(config=config.format('student_effb0', ''), paper=(32.2, 41.8, 58.4)),
    stage1=distilled(1, '_stage1', False, (20.96, 31.53, 47.05)),
    stage2=distilled(2, '_stage2', False, (20.58, 30.88, 49.48)),
    stage3=distilled(3, '', False, (39.37, 49.34, 64.21)),
    stage1_am=distilled(1, '_stage1', True, (30.50, 40.33, 51.33)),
    stage2_am=distilled(2, '_stage2', True, (32.22, 42.11, 56.42)),
    stage3_am=distilled(3, '', True, (41.24, 51.69, 67.08)))
