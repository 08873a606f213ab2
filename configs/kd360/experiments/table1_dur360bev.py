# Table 1: teacher, student and distilled students on Dur360BEV, extended version. The other rows of
# the paper's table are methods of other authors.
#   python tools/run_experiments.py configs/kd360/experiments/table1_dur360bev.py

# Often changed ------------------------------------------------------------------------------------
seeds = (0, )

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 1: Dur360BEV'
metrics = ('bev/IoU100', 'bev/IoU50', 'bev/IoU20')
paper = 'Dur360BEV, extended'
baseline = 'student'

# Rarely -------------------------------------------------------------------------------------------
config = 'configs/kd360/kd360_{}_12k_dur360bev{}.py'

runs = dict(
    teacher=dict(config=config.format('teacher_r101-effb0', ''), paper=(58.3, 64.3, 68.0)),
    student=dict(config=config.format('student_effb0', ''), paper=(32.2, 41.8, 58.4)),
    distilled=dict(config=config.format('distill_effb0', '_noam'), teacher='teacher',
                   paper=(39.4, 49.3, 64.2)),
    distilled_am=dict(config=config.format('distill_effb0', ''), teacher='teacher',
                      paper=(41.2, 51.7, 67.1)))
