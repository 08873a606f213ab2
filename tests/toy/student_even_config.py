"""The tiny student without what differs between halves of a batch: norm statistics and flips."""
_base_ = './student_config.py'
model = dict(flips=None)
custom_hooks = [dict(type='WriteLossHook'), dict(type='FrozenNormHook')]
train_cfg = dict(max_iters=3, val_interval=3)
