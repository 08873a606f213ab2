# Detection data for LiDAR alone, ten scans, with objects of other frames pasted in training.
_base_ = ['./nuscenes_det.py']

# Rarely -------------------------------------------------------------------------------------------
train_dataloader = dict(
    batch_size=4, num_workers=4,
    dataset=dict(_delete_=True, type='CBGSBEVDataset', dataset=dict(
        _base_.train_dataloader.dataset, pipeline=_base_.pasted_lidar_pipeline, image_table=None)))
val_dataloader = dict(dataset=dict(pipeline=_base_.lidar_test_pipeline, image_table=None))
test_dataloader = val_dataloader
val_evaluator = dict(modality=dict(use_lidar=True))
test_evaluator = val_evaluator
