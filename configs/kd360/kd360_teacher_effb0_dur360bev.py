# KD360-VoxelBEV teacher of the camera alone on Dur360BEV: the student's network, without its flips.
_base_ = ['./kd360_student_effb0_dur360bev.py']

model = dict(flips=None)
