# Shared by all configs: import of the plugin, hooks, logging, seeds.
custom_imports = dict(imports=['mmdet3d_plugin'], allow_failed_imports=False)
default_scope = 'mmdet3d'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='UpdateSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=2,
                    save_best='bev/IoU100', rule='greater'),
    sampler_seed=dict(type='ReproducibleTrainingHook'))

env_cfg = dict(
    cudnn_benchmark=False,
    keep_freed_memory=True,  # on CPUs: glibc keeps up to 2 GiB of freed memory for reuse
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

log_processor = dict(type='LogProcessor', window_size=20, by_epoch=False)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends, name='visualizer')
randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
