# One nuScenes keyframe as train and test data for 3D detection: six images, 32 beams, boxes within
# 51.2 m.
_base_ = ['./nuscenes_keyframe.py']

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(x_range=(-51.2, 51.2), y_range=(-51.2, 51.2), resolution=0.8)
det_classes = ('car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle',
               'bicycle', 'pedestrian', 'traffic_cone')
image_size = (256, 704)
box_range = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)

# Rarely -------------------------------------------------------------------------------------------
statistics = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # ImageNet's
det_model = dict(
    grid=grid, data_preprocessor=dict(type='BEVDataPreprocessor', **statistics))
load_images = dict(type='LoadMultiViewImages')
resize_views = dict(type='ImageAug3D', size=image_size, resize=1.0, random=False)
load_scan = dict(type='LoadPointCloud', use_dim=(0, 1, 2, 3))
filter_boxes = dict(type='FilterBoxes', point_cloud_range=box_range, classes=det_classes,
                    min_points=1)
camera_pipeline = [load_images, resize_views, load_scan, filter_boxes,
                   dict(type='PackBEVInputs', keys=('img', 'points'))]
camera_test_pipeline = [load_images, resize_views, dict(type='PackBEVInputs', keys=('img', ))]
lidar_pipeline = [load_scan, filter_boxes, dict(type='PackBEVInputs', keys=('points', ))]

train_dataset = dict(pipeline=camera_pipeline)
val_dataset = dict(pipeline=camera_test_pipeline)
train_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(pipeline=camera_test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='NuScenesDetectionMetric', classes=det_classes)
test_evaluator = val_evaluator
