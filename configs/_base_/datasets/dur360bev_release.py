# Dur360BEV, loaded as in the authors' release of KD360-VoxelBEV.
_base_ = ['./dur360bev.py']

# Sometimes ----------------------------------------------------------------------------------------
load_camera = dict(type='LoadDualFisheyePanorama', size=_base_.panorama_size, sampling='release',
                   concentric=True)
load_scan = dict(type='LoadOusterScan', drop_no_returns=False)
lidar_image = dict(
    type='BuildLiDARImage', channels=('range', 'ambient', 'intensity'),
    size=_base_.lidar_image_size, stateful=True, fov_deg=(22.5, -22.5))
targets = dict(type='RasterizeBEV', grid=_base_.grid, classes=_base_.classes, method='release',
               sigma=3.0)

# Rarely -------------------------------------------------------------------------------------------
camera_pipeline = [load_camera, targets, dict(type='PackBEVInputs', keys=('img', ))]
fusion_pipeline = [load_camera, load_scan, lidar_image, targets, dict(type='PackBEVInputs')]
train_dataloader = dict(drop_last=True, dataset=dict(pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(strict=True)
test_evaluator = val_evaluator
