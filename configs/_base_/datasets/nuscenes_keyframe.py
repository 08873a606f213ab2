# One nuScenes keyframe as train and test data: six images stitched to a panorama, 32 beams.

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/nuscenes_frame/'

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5, rows='-x', cols='-y')
panorama_size = (128, 1024)
lidar_image_size = (64, 1024)
lidar_statistics = dict(lidar_mean=(0.3, 0.3), lidar_std=(0.3, 0.3))  # range, intensity
classes = [('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle')]

# Rarely -------------------------------------------------------------------------------------------
# The LiDAR is 1.84 m above the road, the cameras are 0.3 m below the LiDAR.
load_camera = dict(type='LoadStitchedPanorama', size=panorama_size, fov_deg=(22.5, -22.5),
                   center=(0, 0, -0.3), radius=20.0, ground_z=-1.84)
load_scan = dict(type='LoadPointCloud', min_range=2.5)
lidar_image = dict(type='SphericalLiDARImage', channels=('range', 'intensity'), native=(32, 1024),
                   size=lidar_image_size, max_range=60.0)
targets = dict(type='RasterizeBEV', grid=grid, classes=classes, sigma=3.0)

camera_pipeline = [load_camera, targets, dict(type='PackBEVInputs', keys=('img', ))]
fusion_pipeline = [load_camera, load_scan, lidar_image, targets, dict(type='PackBEVInputs')]

train_dataset = dict(
    type='NuScenesBEVDataset', data_root=data_root, ann_file='nuscenes_frame_infos.pkl',
    pipeline=camera_pipeline)
val_dataset = dict(
    type='NuScenesBEVDataset', data_root=data_root, ann_file='nuscenes_frame_infos.pkl',
    pipeline=camera_pipeline, test_mode=True)

train_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='ResumableSampler', shuffle=False),
    dataset=train_dataset)
val_dataloader = dict(
    batch_size=1, num_workers=0, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False), dataset=val_dataset)
test_dataloader = val_dataloader
val_evaluator = dict(type='BEVIoUMetric', ranges=(100, 50, 20))
test_evaluator = val_evaluator
