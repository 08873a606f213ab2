# Detection data as in Megvii's release of BEVDepth: images resized by PIL, with matrices that are
# off by up to half a pixel, in BGR but normalised with the statistics of RGB.
_base_ = ['./nuscenes_det_ego.py']

# Rarely -------------------------------------------------------------------------------------------
det_model = dict(data_preprocessor=dict(rgb_to_bgr=True))
augment_views = dict(_base_.augment_views, release=True)
resize_views = dict(_base_.resize_views, release=True)
temporal_pipeline = [_base_.load_key_past, augment_views, _base_.load_key_scan,
                     _base_.augment_bev, _base_.filter_boxes, _base_.pack]
temporal_test_pipeline = [_base_.load_key_past, resize_views, _base_.pack_camera]
train_dataloader = dict(dataset=dict(pipeline=temporal_pipeline))
val_dataloader = dict(dataset=dict(pipeline=temporal_test_pipeline))
test_dataloader = val_dataloader
