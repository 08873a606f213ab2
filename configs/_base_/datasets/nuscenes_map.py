# nuScenes for map segmentation: six pictures, one 32-beam scan, and six classes of the map.
_base_ = ['./nuscenes.py']

# Often changed ------------------------------------------------------------------------------------
data_root = 'data/nuscenes/'

# Sometimes ----------------------------------------------------------------------------------------
map_classes = ('drivable_area', 'ped_crossing', 'walkway', 'stop_line', 'carpark_area', 'divider')

# Rarely -------------------------------------------------------------------------------------------
load_pictures = dict(type='LoadPictures', cameras=(
    'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT'))
map_targets = dict(type='RasterizeMap', data_root=data_root, grid=_base_.grid, classes=map_classes)

camera_pipeline = [load_pictures, map_targets, dict(type='PackBEVInputs', keys=('img', ))]
fusion_pipeline = [load_pictures, _base_.load_scan, map_targets,
                   dict(type='PackBEVInputs', keys=('img', 'points'))]

train_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
val_dataloader = dict(dataset=dict(pipeline=camera_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(class_names=map_classes)
test_evaluator = val_evaluator
