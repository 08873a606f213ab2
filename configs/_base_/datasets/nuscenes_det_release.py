# Detection data as in BEVDet's release: images resized by PIL, with matrices that are off by up to
# half a pixel; points of frames without sweeps repeated.
_base_ = ['./nuscenes_det.py']

# Rarely -------------------------------------------------------------------------------------------
augment_views = dict(release=True)
resize_views = dict(release=True)
train_scan = [_base_.load_key_scan, dict(type='LoadSweeps', count=9, random=True, pad_empty=True)]
test_scan = [_base_.load_key_scan, dict(type='LoadSweeps', count=9, pad_empty=True)]
temporal_pipeline = [_base_.load_past, dict(_base_.augment_views, **augment_views),
                     _base_.load_key_scan, _base_.augment_bev, _base_.filter_boxes, _base_.pack]
temporal_test_pipeline = [_base_.load_test_past, dict(_base_.resize_views, **resize_views),
                          _base_.pack_camera]
lidar_pipeline = [*train_scan, _base_.augment_bev, dict(type='PointShuffle'),
                  _base_.filter_boxes, _base_.pack_points]
lidar_test_pipeline = [*test_scan, _base_.pack_points]
train_dataloader = dict(dataset=dict(pipeline=temporal_pipeline))
val_dataloader = dict(dataset=dict(pipeline=temporal_test_pipeline))
test_dataloader = val_dataloader
