# The student at a size that trains on two CPU cores: ResNet-18 with 16 channels.

# Often changed ------------------------------------------------------------------------------------
channels = 24

# Sometimes ----------------------------------------------------------------------------------------
camera_heights = dict(z_range=(-3, 1), num_levels=4, levels='-z')
resnet18 = dict(
    type='mmdet.ResNet',
    depth=18,
    base_channels=16,
    num_stages=3,
    strides=(1, 2, 2),
    dilations=(1, 1, 1),
    out_indices=(1, 2),
    norm_eval=False)

# Rarely -------------------------------------------------------------------------------------------
camera_branch = dict(
    type='CameraBranch',
    encoder=dict(
        type='ImageEncoder',
        backbone=resnet18,
        neck=dict(type='UpsampleConcat', in_channels=(32, 64), mid_channels=48,
                  out_channels=channels)),
    view_transform=dict(
        type='VoxelPulling', **camera_heights,
        compressor=dict(type='HeightCompressor', in_channels=4 * channels,
                        out_channels=channels)))
bev_encoder = dict(type='BEVUNet', in_channels=channels, channels=(24, 32, 48))
head = dict(type='BEVSegHead', in_channels=channels, num_classes=1, prior_prob=0.03)

model = dict(
    type='BEVModel',
    data_preprocessor=dict(type='BEVDataPreprocessor'),
    camera_branch=camera_branch,
    bev_encoder=bev_encoder,
    head=head)
