# Table 4 on toytown: levels, assistant, crossed heads, initial weights.
#   python tools/run_experiments.py configs/bridgeta/experiments/table4_toytown.py
_base_ = ['../../_base_/experiments/bridgeta.py', '../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'Table 4 on toytown: levels, assistant and crossed heads'
paper = 'nuScenes, full size'
metrics = _base_.map_metrics
baseline = 'student'
others = _base_.table1

# Rarely -------------------------------------------------------------------------------------------
runs = {name: dict(run, config=run['config'].format(net='r18', schedule='500it', data='toytown'),
                   options={**_base_.schedule, **run['options']})
        for name, run in _base_.table4.items()}
