# KITTI-360: two fisheye images stitched to a panorama, a 64-beam scan without beam numbers, boxes.
_base_ = ['./dur360bev.py']

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/kitti360/'

# Sometimes ----------------------------------------------------------------------------------------
lidar_image_size = (160, 2048)  # 28 degrees of elevation at the panorama's scale
# Range and intensity; measured on one scan of KITTI, which has the same LiDAR.
lidar_statistics = dict(lidar_mean=(0.1, 0.25), lidar_std=(0.15, 0.3))
classes = [('car', 'truck', 'bus')]

# Rarely -------------------------------------------------------------------------------------------
# The centre is between the two lenses. Their field of view (185 degrees) is in the info file.
load_camera = dict(type='LoadStitchedPanorama', size=_base_.panorama_size, fov_deg=(90, -90),
                   center=(-0.06, 0.0, 0.235), radius=50.0, feather_px=30)
load_scan = dict(type='LoadPointCloud')
lidar_image = dict(type='SphericalLiDARImage', channels=('range', 'intensity'), native=(64, 2048),
                   size=lidar_image_size, max_range=80.0)
targets = dict(type='RasterizeBEV', grid=_base_.grid, classes=classes, sigma=3.0)

camera_pipeline = [load_camera, targets, dict(type='PackBEVInputs', keys=('img', ))]
fusion_pipeline = [load_camera, load_scan, lidar_image, targets, dict(type='PackBEVInputs')]

train_dataloader = dict(dataset=dict(
    type='Kitti360BEVDataset', data_root=data_root, ann_file='kitti360_infos_train.pkl',
    pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(
    type='Kitti360BEVDataset', data_root=data_root, ann_file='kitti360_infos_val.pkl',
    pipeline=camera_pipeline))
test_dataloader = val_dataloader
