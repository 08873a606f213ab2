# KD360-VoxelBEV student on Dur360BEV with ResNet-50, features at stride 8.
_base_ = ['./kd360_student_effb0_12k_dur360bev.py', '../_base_/models/kd360_encoders.py']

model = dict(camera_branch=dict(encoder=dict(_delete_=True, **_base_.encoders.r50)))
