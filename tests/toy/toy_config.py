custom_imports = dict(imports=['mmdet3d_plugin', 'toy_project'], allow_failed_imports=False)
default_scope = 'mmdet3d'
model = dict(type='ToyModel', head=dict(type='ToyHead'), dropout=0.3, norm=True)
dataset = dict(type='ToyDataset', size=12)
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dataset,
    sampler=dict(type='ResumableSampler', shuffle=True))
val_dataloader = dict(
    batch_size=1, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyMetric')
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=2)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=2,
                    save_best='toy/mae', rule='less'))
custom_hooks = [dict(type='WriteLossHook')]
randomness = dict(seed=3)
env_cfg = dict(dist_cfg=dict(backend='nccl'))
