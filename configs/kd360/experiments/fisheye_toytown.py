# Panorama and two fisheye circles as input, on toytown.
#   python tools/run_experiments.py configs/kd360/experiments/fisheye_toytown.py
_base_ = ['../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'Panorama or fisheye circles, on toytown'

# Rarely -------------------------------------------------------------------------------------------
schedule = _base_.schedule
config = 'configs/kd360/kd360_{}_r18_500it_toytown{}.py'


def run(role, sees, variant=''):
    return dict(config=config.format(role, variant), options=schedule,
                columns=dict(model=role, image=sees))


runs = dict(
    student=run('student', 'panorama'),
    student_fisheye=run('student', 'fisheye circles', '_fisheye'))
