# Figure 5: distance of teacher and student with and without the assistant, with the optimal epsilon
# (per batch, per sample) and with constant ones.
#   python tools/run_experiments.py configs/bridgeta/experiments/fig5.py
#   python tools/analyze_logs.py \
#       work_dirs/experiments/fig5/{direct_crossed,epsilon_*,full,sample}/seed_0 \
#       --keys distance_features distance_decoded distance_logits --smooth 50 --log --out fig5.png
_base_ = ['../../_base_/experiments/bridgeta.py']

# Often changed ------------------------------------------------------------------------------------
seeds = (0, )

# Sometimes ----------------------------------------------------------------------------------------
title = 'Figure 5: epsilon'
metrics = _base_.map_metrics
paper = 'nuScenes'
baseline = 'full'

# Rarely -------------------------------------------------------------------------------------------
runs = {name: dict(run, config=run['config'].format(net='swint', schedule='20e', data='nuscenes'))
        for name, run in _base_.fig5.items()}
