# KD360-VoxelBEV camera-only teacher on Dur360BEV: the student's network without its flips.
_base_ = ['./kd360_student_effb0_12k_dur360bev.py']

model = dict(flips=None)
