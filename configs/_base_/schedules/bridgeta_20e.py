# 20 epochs, batch size 6, cosine annealing from 1e-4 (BridgeTA Sec. IV-A). Details that the paper
# does not give are those of BEVFusion: weight decay, but not for the position bias tables, and
# gradients clipped at 35.
_base_ = ['../default_runtime.py']

# Often changed ------------------------------------------------------------------------------------
max_epochs = 20
lr = 1e-4  # at the start; 0 at the end

# Sometimes ----------------------------------------------------------------------------------------
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={
        'absolute_pos_embed': dict(decay_mult=0),
        'relative_position_bias_table': dict(decay_mult=0)}),
    clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=max_epochs, begin=0, end=max_epochs, eta_min=0,
         by_epoch=True, convert_to_iter_based=True)
]

# Rarely -------------------------------------------------------------------------------------------
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
log_processor = dict(by_epoch=True)
default_hooks = dict(
    checkpoint=dict(by_epoch=True, interval=1, save_best='map/mean'))
auto_scale_lr = dict(enable=False, base_batch_size=6)  # all GPUs together
