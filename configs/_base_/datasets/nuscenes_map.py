# nuScenes for map segmentation as in BEVFusion: six images of 256 x 704, a scan with nine sweeps,
# axes of the LiDAR (rows follow x, right; columns follow y, forward), six classes of the map.
_base_ = ['./nuscenes.py']

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/nuscenes/'

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5, rows='+x', cols='+y',
            forward_axis='+y')
map_classes = ('drivable_area', 'ped_crossing', 'walkway', 'stop_line', 'carpark_area', 'divider')
image_size = (256, 704)  # of the network's input

# Rarely -------------------------------------------------------------------------------------------
statistics = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # ImageNet's
map_model = dict(  # what a model takes from the data
    grid=grid, data_preprocessor=dict(type='BEVDataPreprocessor', **statistics),
    head=dict(classes=map_classes))
load_images = dict(type='LoadMultiViewImages', cameras=(
    'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT'))
# BEVFusion's factors of 900 x 1600; one of 0.44 makes the width that of the result.
augment_views = dict(type='ImageAug3D', size=image_size, resize=(0.38 / 0.44, 0.55 / 0.44))
resize_views = dict(type='ImageAug3D', size=image_size, resize=0.48 / 0.44, random=False)
load_key_scan = dict(type='LoadPointCloud', use_dim=(0, 1, 2, 3))
augment_bev = dict(type='GlobalRotScaleTransFlip')
map_targets = dict(type='RasterizeMap', grid=grid, classes=map_classes)
pack_camera = dict(type='PackBEVInputs', keys=('img', ))
pack_points = dict(type='PackBEVInputs', keys=('points', ))
pack = dict(type='PackBEVInputs', keys=('img', 'points'))
train_scan = [load_key_scan, dict(type='LoadSweeps', count=9, random=True)]
test_scan = [load_key_scan, dict(type='LoadSweeps', count=9)]

camera_pipeline = [load_images, augment_views, augment_bev, map_targets, pack_camera]
fusion_pipeline = [load_images, augment_views, *train_scan, augment_bev,
                   dict(type='PointShuffle'), map_targets, pack]
lidar_pipeline = [*train_scan, augment_bev, dict(type='PointShuffle'), map_targets, pack_points]
camera_test_pipeline = [load_images, resize_views, map_targets, pack_camera]
fusion_test_pipeline = [load_images, resize_views, *test_scan, map_targets, pack]
lidar_test_pipeline = [*test_scan, map_targets, pack_points]

train_dataloader = dict(dataset=dict(frame='lidar', pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(frame='lidar', pipeline=camera_test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='MapIoUMetric', classes=map_classes)
test_evaluator = val_evaluator
