_base_ = './toy_config.py'
train_dataloader = dict(num_workers=2, persistent_workers=True)
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=24, val_interval=7)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5))
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='WriteLossHook'), dict(type='EMAHook', momentum=0.1)]
