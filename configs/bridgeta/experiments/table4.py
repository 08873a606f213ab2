# Table 4 (levels, assistant, crossed heads) with the distillation rows of Tables 1 and 2, and the
# initial weights of student and assistant, which the paper does not specify.
#   python tools/run_experiments.py configs/bridgeta/experiments/table4.py
_base_ = ['../../_base_/experiments/bridgeta.py']

# Often changed ------------------------------------------------------------------------------------
seeds = (0, )

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 4: levels, assistant and crossed heads'
metrics = _base_.map_metrics
paper = 'nuScenes'
baseline = 'student'
others = _base_.table1

# Rarely -------------------------------------------------------------------------------------------
runs = {name: dict(run, config=run['config'].format(net='swint', schedule='20e', data='nuscenes'))
        for name, run in _base_.table4.items()}
