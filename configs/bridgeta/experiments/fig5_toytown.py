# Figure 5 on toytown: distance of teacher and student for each epsilon.
#   python tools/run_experiments.py configs/bridgeta/experiments/fig5_toytown.py
#   python tools/analyze_logs.py \
#       work_dirs/experiments/fig5_toytown/{direct_crossed,epsilon_*,full,sample}/seed_0 \
#       --keys distance_features distance_decoded distance_logits --smooth 50 --log --out fig5.png
_base_ = ['../../_base_/experiments/bridgeta.py', '../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'Figure 5 on toytown: epsilon'
paper = 'nuScenes, full size'
metrics = _base_.map_metrics
baseline = 'full'

# Rarely -------------------------------------------------------------------------------------------
runs = {name: dict(run, config=run['config'].format(net='r18', schedule='500it', data='toytown'),
                   options={**_base_.schedule, **run['options']})
        for name, run in _base_.fig5.items()}
