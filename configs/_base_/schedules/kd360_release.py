# Schedule of the release: 12 000 updates, each of 5 accumulated batches of 6.
_base_ = ['./kd360_12k.py']

# Often changed ------------------------------------------------------------------------------------
accumulated = 5  # batches per update

# Rarely -------------------------------------------------------------------------------------------
optim_wrapper = dict(accumulative_counts=accumulated, optimizer=dict(weight_decay=1e-7))
train_cfg = dict(max_iters=accumulated * _base_.max_iters, val_interval=500 * accumulated)
auto_scale_lr = dict(base_batch_size=6 * accumulated)
