# nuScenes for 3D detection in its ego frame (x forward, y left, origin on the ground), as Megvii's
# BEVDepth; past images are those of the key frame before.
_base_ = ['./nuscenes_det.py']

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(forward_axis='+x')
frame = 'ego_ground'

# Rarely -------------------------------------------------------------------------------------------
det_model = dict(grid=grid)
augment_views = dict(resize=(0.386 / 0.44, 0.55 / 0.44))
resize_views = dict(resize=1.0)
temporal_pipeline = [_base_.load_key_past, dict(_base_.augment_views, **augment_views),
                     _base_.load_key_scan, _base_.augment_bev, _base_.filter_boxes, _base_.pack]
temporal_test_pipeline = [_base_.load_key_past, dict(_base_.resize_views, **resize_views),
                          _base_.pack_camera]
train_dataloader = dict(dataset=dict(frame=frame, pipeline=temporal_pipeline))
val_dataloader = dict(dataset=dict(frame=frame, pipeline=temporal_test_pipeline))
test_dataloader = val_dataloader
