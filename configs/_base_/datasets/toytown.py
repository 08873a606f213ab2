# Toytown, the embedded synthetic world, in Dur360BEV's layout; small enough for two CPU cores.
_base_ = ['./dur360bev.py']

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/toytown/'
batch_size = 4
num_workers = 1

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=1.0, rows='-x', cols='-y')

# Rarely -------------------------------------------------------------------------------------------
load_camera = dict(type='LoadDualFisheyePanorama', size=(128, 512), fov_deg=(30, -60))
load_scan = dict(type='LoadOusterScan')
lidar_image = dict(type='BuildLiDARImage', channels=('range', 'ambient', 'intensity'),
                   size=(64, 512))
targets = dict(type='RasterizeBEV', grid=grid, classes=_base_.classes, sigma=1.5)  # cells
camera_pipeline = [load_camera, targets, dict(type='PackBEVInputs', keys=('img', ))]
fusion_pipeline = [load_camera, load_scan, lidar_image, targets, dict(type='PackBEVInputs')]

train_dataloader = dict(
    batch_size=batch_size, num_workers=num_workers, persistent_workers=num_workers > 0,
    dataset=dict(data_root=data_root, pipeline=camera_pipeline))
val_dataloader = dict(
    batch_size=batch_size, num_workers=num_workers, persistent_workers=num_workers > 0,
    dataset=dict(data_root=data_root, pipeline=camera_pipeline))
test_dataloader = val_dataloader
