# Trains in a few minutes on two CPU cores.

# Often changed ------------------------------------------------------------------------------------
max_iters = 500
lr = 3e-3  # the highest

# Sometimes ----------------------------------------------------------------------------------------
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=1e-2),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=lr, total_steps=max_iters + 1, pct_start=0.1,
         anneal_strategy='linear', by_epoch=False)
]

# Rarely -------------------------------------------------------------------------------------------
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters // 4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=4)  # all processes together
