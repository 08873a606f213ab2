# nuScenes: six pinhole images stitched to a panorama, one 32-beam scan. Vehicles as in Lift-Splat:
# every vehicle.* box, cells of 0.5 m, 100 m around the rear axle, boxes drawn as there.
_base_ = ['./dur360bev.py']

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/nuscenes/'

# Sometimes ----------------------------------------------------------------------------------------
panorama_size = (256, 2048)  # 45 degrees of elevation; the images fill about 35 of them
lidar_image_size = (240, 2048)  # 42 degrees of elevation at the panorama's scale
lidar_statistics = dict(lidar_mean=(0.15, 0.15), lidar_std=(0.18, 0.2))  # range, intensity
classes = [('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle',
            'emergency_vehicle')]

# Rarely -------------------------------------------------------------------------------------------
# The centre is between the cameras. The LiDAR is 1.84 m above the road, 0.94 m before the rear
# axle.
load_camera = dict(type='LoadStitchedPanorama', size=panorama_size, fov_deg=(22.5, -22.5),
                   center=(0.95, 0.0, -0.3), radius=20.0, ground_z=-1.84)
load_scan = dict(type='LoadPointCloud', min_range=2.5)
lidar_image = dict(type='SphericalLiDARImage', channels=('range', 'intensity'), native=(32, 1084),
                   size=lidar_image_size, max_range=80.0)
targets = dict(type='RasterizeBEV', grid=_base_.grid, classes=classes, method='lift_splat',
               sigma=3.0)

camera_pipeline = [load_camera, targets, dict(type='PackBEVInputs', keys=('img', ))]
fusion_pipeline = [load_camera, load_scan, lidar_image, targets, dict(type='PackBEVInputs')]

train_dataloader = dict(dataset=dict(
    type='NuScenesBEVDataset', data_root=data_root, ann_file='nuscenes_infos_train.pkl',
    pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(
    type='NuScenesBEVDataset', data_root=data_root, ann_file='nuscenes_infos_val.pkl',
    pipeline=camera_pipeline))
test_dataloader = val_dataloader
