# CenterPoint's schedule: batch size 32, AdamW, one cycle of rate and momentum in 20 epochs.
_base_ = ['./bevdet_24e.py']

# Sometimes ----------------------------------------------------------------------------------------
lr, momentum = 1e-4, 0.9  # at the start
max_epochs = 20
up = 8  # epochs: the highest rate, ten times the first
optim_wrapper = dict(optimizer=dict(lr=lr, weight_decay=0.01, betas=(momentum, 0.999)),
                     clip_grad=dict(max_norm=35.0))
segment = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=up, eta_min=lr * 10, begin=0, end=up, **segment),
    dict(type='CosineAnnealingLR', T_max=max_epochs - up, eta_min=lr * 1e-4, begin=up,
         end=max_epochs, **segment),
    dict(type='CosineAnnealingMomentum', T_max=up, eta_min=momentum * 0.85 / 0.95, begin=0,
         end=up, **segment),
    dict(type='CosineAnnealingMomentum', T_max=max_epochs - up, eta_min=momentum, begin=up,
         end=max_epochs, **segment)
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=32)  # 8 GPUs x 4
