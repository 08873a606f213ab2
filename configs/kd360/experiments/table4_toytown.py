# Table 4 on toytown: inputs of the teacher (R range, A ambient, I intensity, C camera).
#   python tools/run_experiments.py configs/kd360/experiments/table4_toytown.py
_base_ = ['../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 4 on toytown: modalities and SGFM'
paper = 'Dur360BEV-mini, full size'
baseline = None

# Rarely -------------------------------------------------------------------------------------------
schedule = _base_.schedule
config = 'configs/kd360/kd360_{}_r18_500it_toytown{}.py'
statistics = dict(range=(0.2941, 0.3561), ambient=(0.3056, 0.3668), intensity=(0.3148, 0.3749))


def lidar(figures, *channels):
    """A teacher that reads only the given channels of the LiDAR image."""
    mean, std = zip(*(statistics[channel] for channel in channels))
    options = {f'{split}_dataloader.dataset.pipeline.1.channels': channels
               for split in ('train', 'val', 'test')}
    options.update({'model.lidar_branch.encoder.in_channels': len(channels),
                    'model.data_preprocessor.lidar_mean': mean,
                    'model.data_preprocessor.lidar_std': std, **schedule})
    return dict(config=config.format('teacher', '_rai'), options=options, paper=figures,
                columns=dict(sees=''.join(channel[0].upper() for channel in channels)))


runs = dict(
    c=dict(config=config.format('student', ''), options=schedule, paper=(31.6, 37.9, 39.6),
           columns=dict(sees='C')),
    r=lidar(None, 'range'),
    ri=lidar((50.9, 56.8, 62.0), 'range', 'intensity'),
    ai=lidar((51.7, 58.5, 67.0), 'ambient', 'intensity'),
    ra=lidar((53.4, 59.2, 65.1), 'range', 'ambient'),
    rai=lidar((54.0, 61.0, 67.2), 'range', 'ambient', 'intensity'),
    rai_c=dict(config=config.format('teacher', ''), options=schedule, paper=(58.8, 63.4, 70.1),
               columns=dict(sees='RAI + C')))
