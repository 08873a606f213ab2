# BEVDet's schedule: batch size 64, AdamW, 24 epochs, a tenth of the rate after 16 and 22.
_base_ = ['../default_runtime.py']

# Often changed ------------------------------------------------------------------------------------
lr = 2e-4
max_epochs = 24

# Sometimes ----------------------------------------------------------------------------------------
weight_decay = 1e-2
milestones = (16, 22)
warmup_iters = 500
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=weight_decay),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=warmup_iters),
    dict(type='MultiStepLR', milestones=milestones, gamma=0.1, by_epoch=True, begin=0,
         end=max_epochs)
]

# Rarely -------------------------------------------------------------------------------------------
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
log_processor = dict(by_epoch=True)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1, save_best='det/NDS'),
                     logger=dict(interval=50))
auto_scale_lr = dict(enable=True, base_batch_size=64)  # all processes together
