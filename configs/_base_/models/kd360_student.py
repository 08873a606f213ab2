# KD360-VoxelBEV student: one 360-degree image, EfficientNet-B0, dense voxel pulling.

# Often changed ------------------------------------------------------------------------------------
channels = 128

# Sometimes ----------------------------------------------------------------------------------------
# Height -4 m (up: z = +4) to +6 m (down: z = -6) around the camera, as in the authors' release;
# the paper's text says 8 m in cubes of 0.5 m.
camera_heights = dict(z_range=(-6, 4), num_levels=8, levels='-z')
efficientnet_b0 = dict(
    type='EfficientNet',
    arch='b0',
    out_indices=(6, ),
    drop_path_rate=0.2,
    init_cfg=dict(
        type='Pretrained',
        prefix='backbone',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/efficientnet/'
        'efficientnet-b0_3rdparty_8xb32_in1k_20220119-a7e2a0b1.pth'))

# Rarely -------------------------------------------------------------------------------------------
camera_branch = dict(
    type='CameraBranch',
    encoder=dict(
        type='ImageEncoder',
        backbone=efficientnet_b0,
        neck=dict(type='Projection', in_channels=1280, out_channels=channels)),
    view_transform=dict(
        type='VoxelPulling', **camera_heights,
        compressor=dict(type='HeightCompressor', in_channels=8 * channels,
                        out_channels=channels)))
bev_encoder = dict(type='BEVUNet', in_channels=channels, channels=(64, 128, 256))
head = dict(type='BEVSegHead', in_channels=channels, num_classes=1)

model = dict(
    type='BEVModel',
    data_preprocessor=dict(type='BEVDataPreprocessor'),
    flips=dict(image=0.5, rows=0.5, cols=0.5),
    camera_branch=camera_branch,
    bev_encoder=bev_encoder,
    head=head)
