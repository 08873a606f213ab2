_base_ = '../../configs/kd360/kd360_student_r18_500it_toytown.py'
custom_imports = dict(imports=['mmdet3d_plugin', 'toy_project'], allow_failed_imports=False)
custom_hooks = [dict(type='WriteLossHook')]
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_iters=6, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
