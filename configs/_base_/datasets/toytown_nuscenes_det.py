# Toytown in nuScenes' layout for 3D detection, small enough for two CPU cores: boxes within 25.6 m.
_base_ = ['./nuscenes_det.py']

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/toytown_nuscenes/'
batch_size = 4
num_workers = 1

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(x_range=(-25.6, 25.6), y_range=(-25.6, 25.6), resolution=0.8, rows='+y', cols='+x',
            forward_axis='+y')
det_classes = ('car', 'truck', 'bus', 'pedestrian')
class_range = dict(car=25, truck=25, bus=25, pedestrian=25)  # metres
image_size = (96, 256)
box_range = (-25.6, -25.6, -5.0, 25.6, 25.6, 3.0)

# Rarely -------------------------------------------------------------------------------------------
det_model = dict(grid=grid)
load_past = dict(_base_.load_key_past)
augment_views = dict(type='ImageAug3D', size=image_size, resize=(0.9, 1.1), rot_deg=0.0)
resize_views = dict(type='ImageAug3D', size=image_size, resize=1.0, random=False)
filter_boxes = dict(type='FilterBoxes', point_cloud_range=box_range, classes=det_classes,
                    valid=True)
train_scan = [_base_.load_key_scan, dict(type='LoadSweeps', count=4, random=True)]
test_scan = [_base_.load_key_scan, dict(type='LoadSweeps', count=4)]
camera_pipeline = [_base_.load_images, augment_views, _base_.load_key_scan, _base_.augment_bev,
                   filter_boxes, _base_.pack]
camera_test_pipeline = [_base_.load_images, resize_views, _base_.pack_camera]
temporal_pipeline = [load_past, augment_views, _base_.load_key_scan, _base_.augment_bev,
                     filter_boxes, _base_.pack]
temporal_test_pipeline = [load_past, resize_views, _base_.pack_camera]
lidar_pipeline = [*train_scan, _base_.augment_bev, dict(type='PointShuffle'), filter_boxes,
                  _base_.pack_points]
lidar_test_pipeline = [*test_scan, _base_.pack_points]

train_dataloader = dict(
    batch_size=batch_size, num_workers=num_workers, persistent_workers=num_workers > 0,
    dataset=dict(data_root=data_root, pipeline=temporal_pipeline))
val_dataloader = dict(
    batch_size=batch_size, num_workers=num_workers, persistent_workers=num_workers > 0,
    dataset=dict(data_root=data_root, pipeline=temporal_test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(classes=det_classes, class_range=class_range)
test_evaluator = val_evaluator
