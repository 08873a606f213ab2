# Table 2: teacher, student and distilled student on KITTI-360.
#   python tools/run_experiments.py configs/kd360/experiments/table2_kitti360.py

# Often changed ------------------------------------------------------------------------------------
seeds = (0, )

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 2: KITTI-360'
metrics = ('bev/IoU100', 'bev/IoU50', 'bev/IoU20')
paper = 'KITTI-360'
baseline = 'student'

# Rarely -------------------------------------------------------------------------------------------
config = 'configs/kd360/kd360_{}_12k_kitti360.py'

runs = dict(
    teacher=dict(config=config.format('teacher_r101-effb0'), paper=(53.9, 65.8, 76.4)),
    student=dict(config=config.format('student_effb0'), paper=(24.1, 37.9, 63.8)),
    distilled=dict(config=config.format('distill_effb0'), teacher='teacher',
                   paper=(32.3, 46.6, 69.6)))
