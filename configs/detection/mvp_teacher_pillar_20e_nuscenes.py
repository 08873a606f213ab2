# MVP with dynamic pillars of 0.2 m: ten scans with virtual points, DualDistill's better teacher.
_base_ = ['./centerpoint_teacher_pillar_20e_nuscenes.py']

# Rarely -------------------------------------------------------------------------------------------
load_virtual = dict(type='LoadVirtualPoints', count=9)
lidar_pipeline = [
    _base_.load_key_scan, dict(load_virtual, random=True),
    dict(_base_.paste_objects, database='nuscenes_objects_train_mvp'), _base_.augment_bev,
    dict(type='PointShuffle'), _base_.filter_boxes, _base_.pack_points
]
lidar_test_pipeline = [_base_.load_key_scan, load_virtual, _base_.pack_points]

model = dict(lidar_branch=dict(in_channels=17, kind_column=15))
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=lidar_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=lidar_test_pipeline))
test_dataloader = val_dataloader
