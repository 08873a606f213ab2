# Shared by the experiments on toytown.

# Often changed ------------------------------------------------------------------------------------
max_iters = 400
seeds = (0, 1, 2)

# Rarely -------------------------------------------------------------------------------------------
metrics = ('bev/IoU100', 'bev/IoU50', 'bev/IoU20')
baseline = 'student'
schedule = {
    'train_cfg.max_iters': max_iters,
    'train_cfg.val_interval': max_iters,
    'param_scheduler.0.total_steps': max_iters + 1,
    'optim_wrapper.type': 'BF16OptimWrapper'
}
