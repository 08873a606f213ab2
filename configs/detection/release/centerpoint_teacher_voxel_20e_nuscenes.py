# CenterPoint with voxels of mmdetection3d's model zoo: voxel01, circle NMS.
_base_ = [
    '../../_base_/datasets/nuscenes_det_lidar_release.py',
    '../../_base_/models/centerpoint_voxel.py', '../../_base_/schedules/centerpoint_20e.py'
]

model = dict(
    _base_.det_model,
    head=dict(
        average_over_processes=False,
        train_cfg=dict(rounding='trunc', code_weights=(1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2)),
        test_cfg=dict(
            post_center_range=(-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
            nms_type='circle', squared_radius=(4, 12, 10, 1, 0.85, 0.175))))
