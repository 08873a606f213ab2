# As kd360_student_r18_toytown.py, on the two fisheye circles themselves: no panorama is made.
_base_ = ['./kd360_student_r18_toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
rows = (0.25, 0.875)  # of the circles; what the panorama shows, +30 to -60 degrees, and some sky

# Rarely -------------------------------------------------------------------------------------------
load_camera = dict(type='LoadDualFisheye', rows=rows)
camera_pipeline = [load_camera, _base_.targets, dict(type='PackBEVInputs', keys=('img', ))]
train_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
test_dataloader = val_dataloader
