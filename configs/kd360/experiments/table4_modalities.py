# Table 4: inputs of the teacher (R range, A ambient, I intensity, C camera), Dur360BEV-mini.
#   python tools/create_data.py dur360bev --root-path data/dur360bev --version mini \
#       --out-dir data/dur360bev/mini
#   python tools/run_experiments.py configs/kd360/experiments/table4_modalities.py

# Often changed ------------------------------------------------------------------------------------
max_iters = 4000
seeds = (0, )

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 4: modalities and SGFM'
metrics = ('bev/IoU100', 'bev/IoU50', 'bev/IoU20')
paper = 'Dur360BEV-mini'

# Rarely -------------------------------------------------------------------------------------------
config = 'configs/kd360/kd360_teacher_{}.py'
options = {
    'train_cfg.max_iters': max_iters,
    'param_scheduler.0.total_steps': max_iters + 100,
    'train_dataloader.dataset.ann_file': 'mini/dur360bev_infos_train.pkl',
    'val_dataloader.dataset.ann_file': 'mini/dur360bev_infos_val.pkl',
    'test_dataloader.dataset.ann_file': 'mini/dur360bev_infos_val.pkl'
}


def teacher(name, sensors, figures):
    return dict(config=config.format(name), options=options, paper=figures,
                columns=dict(sees=sensors))


runs = dict(
    c=teacher('effb0_12k_dur360bev', 'C', (31.6, 37.9, 39.6)),
    ri=teacher('r101_12k_dur360bev_ri', 'RI', (50.9, 56.8, 62.0)),
    ai=teacher('r101_12k_dur360bev_ai', 'AI', (51.7, 58.5, 67.0)),
    ra=teacher('r101_12k_dur360bev_ra', 'RA', (53.4, 59.2, 65.1)),
    rai=teacher('r101_12k_dur360bev_rai', 'RAI', (54.0, 61.0, 67.2)),
    rai_c=teacher('r101-effb0_12k_dur360bev', 'RAI + C', (58.8, 63.4, 70.1)))
