# Voxels as in the text of the paper: 8 m of height in cubes of 0.5 m.
_base_ = ['./kd360_student_effb0_12k_dur360bev.py']

paper_heights = dict(
    z_range=(-4, 4), num_levels=16, compressor=dict(in_channels=16 * _base_.channels))
model = dict(camera_branch=dict(view_transform=paper_heights))
