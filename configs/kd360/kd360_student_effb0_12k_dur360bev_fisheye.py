# As kd360_student_effb0_12k_dur360bev.py, with the two fisheye circles instead of a panorama.
_base_ = ['./kd360_student_effb0_12k_dur360bev.py']

# Rarely -------------------------------------------------------------------------------------------
load_camera = dict(type='LoadDualFisheye')
camera_pipeline = [load_camera, _base_.targets, dict(type='PackBEVInputs', keys=('img', ))]
train_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
test_dataloader = val_dataloader
