# Table 2 on toytown: a teacher without ambient light, as on KITTI-360.
#   python tools/run_experiments.py configs/kd360/experiments/table2_toytown.py
_base_ = ['../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 2 on toytown: no ambient light'
paper = 'KITTI-360, full size'

# Rarely -------------------------------------------------------------------------------------------
schedule = _base_.schedule
config = 'configs/kd360/kd360_{}_r18_500it_toytown{}.py'
channels = ('range', 'intensity')
statistics = dict(lidar_mean=(0.3, 0.3), lidar_std=(0.3, 0.3))


def two_channels(*splits):
    return {f'{split}_dataloader.dataset.pipeline.2.channels': channels for split in splits}


runs = dict(
    teacher=dict(
        config=config.format('teacher', ''), paper=(53.9, 65.8, 76.4),
        options={'model.lidar_branch.encoder.in_channels': 2,
                 'model.data_preprocessor': statistics,
                 **two_channels('train', 'val', 'test'), **schedule}),
    student=dict(config=config.format('student', ''), options=schedule, paper=(24.1, 37.9, 63.8)),
    distilled=dict(
        config=config.format('distill', '_am'), teacher='teacher', paper=(32.3, 46.6, 69.6),
        options={'model.student.data_preprocessor': statistics, **two_channels('train'),
                 **schedule}))
