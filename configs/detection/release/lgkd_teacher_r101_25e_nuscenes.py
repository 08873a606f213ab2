# BEV-LGKD's teacher: BEVDepth with ResNet-101, an image neck of 4 x 160 and cells of 0.4 m.
_base_ = ['./bevdepth_student_r101_24e_nuscenes.py']

model = dict(
    grid=dict(resolution=0.4),
    camera_branch=dict(
        encoder=dict(neck=dict(out_channels=(160, 160, 160, 160))),
        view_transform=dict(in_channels=640, resolution=0.4)))
train_dataloader = dict(batch_size=5)
train_cfg = dict(max_epochs=25)
