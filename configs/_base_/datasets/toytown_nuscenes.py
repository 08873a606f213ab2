# Toytown in nuScenes' layout, small enough for two CPU cores: the map within 30 m.
_base_ = ['./nuscenes_map.py']

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/toytown_nuscenes/'
batch_size = 4
num_workers = 1

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(x_range=(-30, 30), y_range=(-30, 30), resolution=1.0, rows='+x', cols='+y',
            forward_axis='+y')
image_size = (64, 160)

# Rarely -------------------------------------------------------------------------------------------
map_model = dict(grid=grid)
augment_views = dict(type='ImageAug3D', size=image_size, resize=(0.84, 1.0))
resize_views = dict(type='ImageAug3D', size=image_size, resize=0.9, random=False)
map_targets = dict(type='RasterizeMap', grid=grid, classes=_base_.map_classes)
train_scan = [_base_.load_key_scan, dict(type='LoadSweeps', count=2, random=True)]
test_scan = [_base_.load_key_scan, dict(type='LoadSweeps', count=2)]
camera_pipeline = [_base_.load_images, augment_views, _base_.augment_bev, map_targets,
                   _base_.pack_camera]
fusion_pipeline = [_base_.load_images, augment_views, *train_scan, _base_.augment_bev,
                   dict(type='PointShuffle'), map_targets, _base_.pack]
camera_test_pipeline = [_base_.load_images, resize_views, map_targets, _base_.pack_camera]
fusion_test_pipeline = [_base_.load_images, resize_views, *test_scan, map_targets, _base_.pack]

train_dataloader = dict(
    batch_size=batch_size, num_workers=num_workers, persistent_workers=num_workers > 0,
    dataset=dict(data_root=data_root, pipeline=camera_pipeline))
val_dataloader = dict(
    batch_size=batch_size, num_workers=num_workers, persistent_workers=num_workers > 0,
    dataset=dict(data_root=data_root, pipeline=camera_test_pipeline))
test_dataloader = val_dataloader
