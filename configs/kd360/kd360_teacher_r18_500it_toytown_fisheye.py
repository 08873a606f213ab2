# As kd360_teacher_r18_500it_toytown.py, with the two fisheye circles instead of a panorama.
_base_ = ['./kd360_teacher_r18_500it_toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
rows = (0.25, 0.875)  # as in the student

# Rarely -------------------------------------------------------------------------------------------
load_camera = dict(type='LoadDualFisheye', rows=rows)
fusion_pipeline = [
    load_camera, _base_.load_scan, _base_.lidar_image, _base_.targets,
    dict(type='PackBEVInputs')
]
train_dataloader = dict(dataset=dict(pipeline=fusion_pipeline))
val_dataloader = dict(dataset=dict(pipeline=fusion_pipeline))
test_dataloader = val_dataloader
