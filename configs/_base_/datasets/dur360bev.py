# Dur360BEV: one dual-fisheye image, one 128-beam Ouster scan, boxes; cells of 0.5 m, 100 m wide.

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/dur360bev/'
batch_size = 6  # of each GPU
num_workers = 6

# Sometimes ----------------------------------------------------------------------------------------
grid = dict(x_range=(-50, 50), y_range=(-50, 50), resolution=0.5, rows='-x', cols='-y')
panorama_size = (1024, 2048)  # 180 by 360 degrees
lidar_image_size = (242, 2048)  # 42.5 degrees at the panorama's scale
classes = [('car', 'bus', 'truck')]  # one channel

# Rarely -------------------------------------------------------------------------------------------
load_camera = dict(type='LoadDualFisheyePanorama', size=panorama_size)
load_scan = dict(type='LoadOusterScan')
lidar_image = dict(type='BuildLiDARImage', channels=('range', 'ambient', 'intensity'),
                   size=lidar_image_size)
targets = dict(type='RasterizeBEV', grid=grid, classes=classes, sigma=3.0)  # cells

camera_pipeline = [load_camera, targets, dict(type='PackBEVInputs', keys=('img', ))]
fusion_pipeline = [load_camera, load_scan, lidar_image, targets, dict(type='PackBEVInputs')]

train_dataset = dict(
    type='Dur360BEVDataset', data_root=data_root, ann_file='dur360bev_infos_train.pkl',
    pipeline=camera_pipeline)
val_dataset = dict(
    type='Dur360BEVDataset', data_root=data_root, ann_file='dur360bev_infos_val.pkl',
    pipeline=camera_pipeline, test_mode=True)

train_dataloader = dict(
    batch_size=batch_size, num_workers=num_workers, persistent_workers=num_workers > 0,
    sampler=dict(type='ResumableSampler', shuffle=True), dataset=train_dataset)
val_dataloader = dict(
    batch_size=batch_size, num_workers=num_workers, persistent_workers=num_workers > 0,
    drop_last=False, sampler=dict(type='DefaultSampler', shuffle=False), dataset=val_dataset)
test_dataloader = val_dataloader
val_evaluator = dict(type='BEVIoUMetric', ranges=(100, 50, 20))
test_evaluator = val_evaluator
