# BEVFusion's schedule: batch size 32, learning rate up to 1e-3 in 8 epochs and down to 1e-8 in 12,
# while the first momentum of AdamW goes down to 0.85 / 0.95 of its value and back.
_base_ = ['./bridgeta_20e.py']

# Sometimes ----------------------------------------------------------------------------------------
lr, momentum = 1e-4, 0.9  # at the start
up, end = 8, 20  # epochs: the highest rate, the last
optim_wrapper = dict(optimizer=dict(lr=lr, betas=(momentum, 0.999)))
segment = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=up, eta_min=lr * 10, begin=0, end=up, **segment),
    dict(type='CosineAnnealingLR', T_max=end - up, eta_min=lr * 1e-4, begin=up, end=end,
         **segment),
    dict(type='CosineAnnealingMomentum', T_max=up, eta_min=momentum * 0.85 / 0.95, begin=0,
         end=up, **segment),
    dict(type='CosineAnnealingMomentum', T_max=end - up, eta_min=momentum, begin=up, end=end,
         **segment)
]
auto_scale_lr = dict(base_batch_size=32)  # 8 GPUs x 4
