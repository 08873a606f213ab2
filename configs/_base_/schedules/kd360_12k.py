# 12 000 optimiser steps, batch size 6, OneCycleLR (KD360-VoxelBEV Sec. 4.3).

# Often changed ------------------------------------------------------------------------------------
max_iters = 12000
lr = 5e-4  # the highest

# Sometimes ----------------------------------------------------------------------------------------
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=1e-5))
param_scheduler = [
    # total_steps as in the release, 100 more than are run
    dict(type='OneCycleLR', eta_max=lr, total_steps=max_iters + 100, pct_start=0.1,
         anneal_strategy='linear', by_epoch=False)
]

# Rarely -------------------------------------------------------------------------------------------
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=6)  # all GPUs together
