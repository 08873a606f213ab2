# nuScenes for 3D detection: six images of 256 x 704 and perhaps past ones, a scan with nine sweeps,
# boxes within 51.2 m in the frame of the LiDAR (x right, y forward).
_base_ = ['./nuscenes.py']

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/nuscenes/'

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(x_range=(-51.2, 51.2), y_range=(-51.2, 51.2), resolution=0.8, rows='+y', cols='+x',
            forward_axis='+y')
frame = 'lidar'
det_classes = ('car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle',
               'bicycle', 'pedestrian', 'traffic_cone')
image_size = (256, 704)  # of the network's input
box_range = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)

# Rarely -------------------------------------------------------------------------------------------
statistics = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # ImageNet's
det_model = dict(  # what a model takes from the data
    grid=grid, data_preprocessor=dict(type='BEVDataPreprocessor', **statistics))
cameras = ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK',
           'CAM_BACK_RIGHT')
load_images = dict(type='LoadMultiViewImages', cameras=cameras)
# BEVDet draws the past images from 0.75 to 2.25 s before the frame, and tests with 1.5 s.
load_past = dict(type='LoadMultiViewImages', cameras=cameras, num_past=1,
                 seconds=[(0.75, 2.25)])
load_test_past = dict(load_past, seconds=[1.5])
load_key_past = dict(type='LoadMultiViewImages', cameras=cameras, num_past=1, key_frames=True)
# BEVDet's factors of 900 x 1600; one of 0.44 makes the width that of the result.
augment_views = dict(type='ImageAug3D', size=image_size, resize=(0.38 / 0.44, 0.55 / 0.44))
resize_views = dict(type='ImageAug3D', size=image_size, resize=0.48 / 0.44, random=False)
load_key_scan = dict(type='LoadPointCloud', use_dim=(0, 1, 2, 3))
augment_bev = dict(type='GlobalRotScaleTransFlip', scale_range=(0.95, 1.05), rot_deg=22.5,
                   translation_std=0.0)
# Of CenterPoint; tools/create_database.py makes the database.
paste_objects = dict(
    type='PasteObjects', database='nuscenes_objects_train', min_points=5, epochs=15,
    counts=dict(car=2, truck=3, construction_vehicle=7, bus=4, trailer=6, barrier=2, motorcycle=6,
                bicycle=6, pedestrian=2, traffic_cone=2))
filter_boxes = dict(type='FilterBoxes', point_cloud_range=box_range, classes=det_classes,
                    valid=True)
pack_camera = dict(type='PackBEVInputs', keys=('img', ))
pack_points = dict(type='PackBEVInputs', keys=('points', ))
pack = dict(type='PackBEVInputs', keys=('img', 'points'))
train_scan = [load_key_scan, dict(type='LoadSweeps', count=9, random=True)]
test_scan = [load_key_scan, dict(type='LoadSweeps', count=9)]

camera_pipeline = [load_images, augment_views, load_key_scan, augment_bev, filter_boxes, pack]
camera_test_pipeline = [load_images, resize_views, pack_camera]
temporal_pipeline = [load_past, augment_views, load_key_scan, augment_bev, filter_boxes, pack]
temporal_test_pipeline = [load_test_past, resize_views, pack_camera]
lidar_pipeline = [*train_scan, augment_bev, dict(type='PointShuffle'), filter_boxes, pack_points]
pasted_lidar_pipeline = [*train_scan, paste_objects, augment_bev, dict(type='PointShuffle'),
                         filter_boxes, pack_points]
lidar_test_pipeline = [*test_scan, pack_points]

train_dataloader = dict(dataset=dict(frame=frame, pipeline=temporal_pipeline,
                                     image_table='nuscenes_images_train.npz'))
val_dataloader = dict(dataset=dict(frame=frame, pipeline=temporal_test_pipeline,
                                   image_table='nuscenes_images_val.npz'))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='NuScenesDetectionMetric', classes=det_classes)
test_evaluator = val_evaluator
