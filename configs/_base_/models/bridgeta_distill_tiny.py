# BridgeTA for two CPU cores: a camera-only student, and an assistant that reads the teacher's
# LiDAR features.
_base_ = ['./bridgeta_student_tiny.py', './bridgeta_terms.py']

# Rarely -------------------------------------------------------------------------------------------
lidar_channels = 48
model = dict(
    _delete_=True,
    type='Distiller',
    student=_base_.model,
    assistant=dict(
        type='AuxiliaryModule',
        fuser=dict(type='ConvFuser', in_channels=(_base_.channels, lidar_channels),
                   out_channels=_base_.channels),
        bev_encoder=_base_.decoder,
        head=_base_.head),
    terms=_base_.terms)
