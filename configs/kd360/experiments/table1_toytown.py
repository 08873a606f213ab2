# Table 1 on toytown: teacher, student and distilled students.
#   python tools/run_experiments.py configs/kd360/experiments/table1_toytown.py
_base_ = ['../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 1 on toytown'
paper = 'Dur360BEV, full size'

# Rarely -------------------------------------------------------------------------------------------
schedule = _base_.schedule
config = 'configs/kd360/kd360_{}_r18_500it_toytown{}.py'

runs = dict(
    teacher=dict(config=config.format('teacher', ''), options=schedule, paper=(58.3, 64.3, 68.0)),
    student=dict(config=config.format('student', ''), options=schedule, paper=(32.2, 41.8, 58.4)),
    distilled=dict(config=config.format('distill', ''), options=schedule, teacher='teacher',
                   paper=(39.4, 49.3, 64.2)),
    distilled_am=dict(config=config.format('distill', '_am'), options=schedule, teacher='teacher',
                      paper=(41.2, 51.7, 67.1)))
