# MVP with pillars, tiny, on toytown that was written with --virtual-points: a LiDAR teacher.
_base_ = ['./centerpoint_teacher_pillar_500it_toytown.py']

# Rarely -------------------------------------------------------------------------------------------
load_virtual = dict(type='LoadVirtualPoints', count=4)
lidar_pipeline = [
    _base_.load_key_scan, dict(load_virtual, random=True), _base_.augment_bev,
    dict(type='PointShuffle'), _base_.filter_boxes, _base_.pack_points
]
lidar_test_pipeline = [_base_.load_key_scan, load_virtual, _base_.pack_points]

model = dict(lidar_branch=dict(in_channels=17, kind_column=15))
train_dataloader = dict(dataset=dict(pipeline=lidar_pipeline))
val_dataloader = dict(dataset=dict(pipeline=lidar_test_pipeline))
test_dataloader = val_dataloader
