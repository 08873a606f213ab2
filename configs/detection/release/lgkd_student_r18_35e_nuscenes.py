# BEV-LGKD's student, without its teacher: BEVDepth with ResNet-18 and cells of 0.4 m.
_base_ = ['./bevdepth_student_r18_24e_nuscenes.py']

model = dict(grid=dict(resolution=0.4),
             camera_branch=dict(view_transform=dict(resolution=0.4)))
train_cfg = dict(max_epochs=35)
