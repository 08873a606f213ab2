# The release's student with its encoder "effb4": EfficientNet-B4 up to stride 16.
_base_ = ['./kd360_student_effb0_12k_dur360bev.py', '../../_base_/models/kd360_encoders.py']

encoder = _base_.encoders.effb4_s8
model = dict(camera_branch=dict(encoder=dict(
    _delete_=True, **dict(encoder, backbone=dict(encoder.backbone, fixed_padding=True)))))
