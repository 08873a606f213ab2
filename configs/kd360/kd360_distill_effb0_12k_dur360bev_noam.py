# KD360-VoxelBEV distillation on Dur360BEV: stage 3, without the auxiliary module.
_base_ = ['./kd360_distill_effb0_12k_dur360bev.py']

model = dict(assistant=None, terms=dict(assistant=None))
