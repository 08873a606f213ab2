# BEVDepth with cells of 0.4 m: a grid of 256 x 256.
_base_ = ['./bevdepth_student_r50_24e_nuscenes.py']

model = dict(grid=dict(resolution=0.4),
             camera_branch=dict(view_transform=dict(resolution=0.4)))
