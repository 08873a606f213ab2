# Megvii's schedule of BEVDepth: no warm-up, almost no weight decay, steps after 19 and 23 epochs.
_base_ = ['./bevdet_24e.py']

# Sometimes ----------------------------------------------------------------------------------------
weight_decay = 1e-7
milestones = (19, 23)
optim_wrapper = dict(optimizer=dict(weight_decay=weight_decay))
param_scheduler = [
    dict(type='MultiStepLR', milestones=milestones, gamma=0.1, by_epoch=True, begin=0,
         end=_base_.max_epochs)
]
