# BEVFusion as released for map segmentation: LiDAR only.
_base_ = ['./bevfusion.py']

model = dict(camera_branch=None, fuser=None)
