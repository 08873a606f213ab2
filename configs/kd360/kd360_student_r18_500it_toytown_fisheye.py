# As kd360_student_r18_500it_toytown.py, with the two fisheye circles instead of a panorama.
_base_ = ['./kd360_student_r18_500it_toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
# Rows of the circles: the elevations of the panorama, +30 to -60 degrees, and more sky.
rows = (0.25, 0.875)

# Rarely -------------------------------------------------------------------------------------------
load_camera = dict(type='LoadDualFisheye', rows=rows)
camera_pipeline = [load_camera, _base_.targets, dict(type='PackBEVInputs', keys=('img', ))]
train_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
test_dataloader = val_dataloader
