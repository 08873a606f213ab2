# Data as in BEVFusion's release: images resized by PIL, with matrices wrong by half a pixel; maps
# drawn as by the devkit, without the scale; points of frames without sweeps repeated; classes
# resampled.
_base_ = ['./nuscenes_map.py']

# Rarely -------------------------------------------------------------------------------------------
augment_views = dict(type='ImageAug3D', size=_base_.image_size, resize=(0.38, 0.55),
                     relative=False, release=True)
resize_views = dict(type='ImageAug3D', size=_base_.image_size, resize=0.48, random=False,
                    relative=False, release=True)
sweeps = dict(type='LoadSweeps', count=9, random=True, pad_empty=True)  # random in tests as well
map_targets = dict(type='RasterizeMap', grid=_base_.grid, classes=_base_.map_classes,
                   method='devkit', scale_aware=False)
scan = [_base_.load_key_scan, sweeps]
camera_pipeline = [_base_.load_images, augment_views, _base_.augment_bev, map_targets,
                   _base_.pack_camera]
fusion_pipeline = [_base_.load_images, augment_views, *scan, _base_.augment_bev,
                   dict(type='PointShuffle'), map_targets, _base_.pack]
lidar_pipeline = [*scan, _base_.augment_bev, dict(type='PointShuffle'), map_targets,
                  _base_.pack_points]
camera_test_pipeline = [_base_.load_images, resize_views, map_targets, _base_.pack_camera]
fusion_test_pipeline = [_base_.load_images, resize_views, *scan, map_targets, _base_.pack]
lidar_test_pipeline = [*scan, map_targets, _base_.pack_points]

train_dataloader = dict(dataset=dict(
    _delete_=True, type='CBGSBEVDataset', dataset=_base_.train_dataloader.dataset))
