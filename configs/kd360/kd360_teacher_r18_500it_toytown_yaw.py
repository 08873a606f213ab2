# As kd360_teacher_r18_500it_toytown.py, each frame rotated by a random yaw (RandomYaw).
_base_ = ['./kd360_teacher_r18_500it_toytown.py']

train_dataloader = dict(dataset=dict(pipeline=[
    _base_.load_camera, _base_.load_scan, _base_.lidar_image,
    dict(type='RandomYaw'), _base_.targets,
    dict(type='PackBEVInputs')
]))
