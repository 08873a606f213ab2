# The student of DistillBEV and DualDistill as released: its BEV neck ends with norm and ReLU.
_base_ = ['./bevdepth4d_student_r50_24e_nuscenes.py']

model = dict(bev_encoder=dict(neck=dict(extra_norm_act=True)))
