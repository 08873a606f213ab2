# Options that are not in the paper, one at a time, on toytown.
#   python tools/run_experiments.py configs/kd360/experiments/ablations_toytown.py
_base_ = ['../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'Options beyond the paper, on toytown'

# Rarely -------------------------------------------------------------------------------------------
schedule = _base_.schedule
config = 'configs/kd360/kd360_{}_r18_500it_toytown.py'
loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
flips = dict(image=0.5, rows=0.5, cols=0.5)
fading = dict(wrap=False, border='fade')
ema = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01)]
deepest = 'bev_encoder[2]'
terms = dict(_delete_=True, student=dict(
    type='FeatureTerm', student=f'student.{deepest}', teacher=f'teacher.{deepest}', weight=3.0,
    criterion=dict(type='ChannelWiseKL', temperature=3.0)))


def run(role, what, options=None, variant='', **more):
    return dict(config=config.format(role).replace('.py', f'{variant}.py'),
                options={**schedule, **(options or {})}, columns=dict(model=role, change=what),
                **more)


def in_pipelines(key, value):
    return {f'{loader}.dataset.pipeline.{key}': value for loader in loaders}


runs = dict(
    student=run('student', '–'),
    student_fp32=run('student', 'float32', {'optim_wrapper.type': 'OptimWrapper'}),
    student_fading=run('student', 'features fade out at the seam (release)',
                       {'model.camera_branch.view_transform': fading}),
    student_circular=run('student', 'convolutions across the seam',
                         {'model.camera_branch.encoder.wrap': True}),
    student_concentric=run('student', 'extrinsics ignored (release)',
                           in_pipelines('0.concentric', True)),
    student_unmasked=run('student', 'offset loss on all cells (release)',
                         {'model.head.losses': dict(offset=dict(type='OffsetL1Loss',
                                                                masked=False))}),
    student_flips=run('student', 'random flips in the network', {'model.flips': flips}),
    student_yaw=run('student', 'yaw augmentation', variant='_yaw'),
    student_ema=run('student', 'EMA of the weights', {'custom_hooks': ema}),
    distill_flips=run('distill', 'stage 2, random flips',
                      {'model.terms': terms, 'model.student.flips': flips}, teacher='teacher'),
    distill_flips_late=run('distill', 'stage 2, random flips undone after the taps (release)',
                           {'model.terms': terms,
                            'model.student.flips': dict(flips, undo_late=True)},
                           teacher='teacher'),
    teacher=run('teacher', '–'),
    teacher_yaw=run('teacher', 'yaw augmentation', variant='_yaw'),
    teacher_stateful=run('teacher', 'LiDAR image with drifting exposure (release)',
                         in_pipelines('2.stateful', True)),
    teacher_fov=run('teacher', 'LiDAR elevations 5 % too small',
                    in_pipelines('2.fov_deg', (21.27, -21.27))),
    teacher_circular=run('teacher', 'convolutions across the seam',
                         {f'model.{branch}_branch.encoder.wrap': True
                          for branch in ('camera', 'lidar')}))
