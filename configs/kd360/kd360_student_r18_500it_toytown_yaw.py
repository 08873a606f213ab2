# As kd360_student_r18_500it_toytown.py, each frame rotated by a random yaw (RandomYaw).
_base_ = ['./kd360_student_r18_500it_toytown.py']

train_dataloader = dict(dataset=dict(pipeline=[
    _base_.load_camera,
    dict(type='RandomYaw'), _base_.targets,
    dict(type='PackBEVInputs', keys=('img', ))
]))
