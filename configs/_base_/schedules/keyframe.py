# Fits one frame in a few minutes on two CPU cores.
_base_ = ['./toytown.py']

# Often changed ------------------------------------------------------------------------------------
max_iters = 300

# Rarely -------------------------------------------------------------------------------------------
param_scheduler = [
    dict(type='OneCycleLR', eta_max=_base_.lr, total_steps=max_iters + 1, pct_start=0.1,
         anneal_strategy='linear', by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 3)
auto_scale_lr = dict(base_batch_size=1)
