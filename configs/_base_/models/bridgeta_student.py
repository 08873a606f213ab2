# BridgeTA's student, BEVFusion-C (camera only): Swin-T, Lift-Splat, a residual decoder.
# The channels are those of BEVFusion's camera-only-seg release.

# Sometimes ----------------------------------------------------------------------------------------
features = dict(x_range=(-51.2, 51.2), y_range=(-51.2, 51.2))  # 0.4 m; 0.8 m after BEVDownsample
channels = 80

# Rarely -------------------------------------------------------------------------------------------
swin = dict(
    type='mmdet.SwinTransformer',
    embed_dims=96,
    depths=(2, 2, 6, 2),
    num_heads=(3, 6, 12, 24),
    window_size=7,
    drop_path_rate=0.3,
    out_indices=(1, 2, 3),
    convert_weights=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
        'swin_tiny_patch4_window7_224.pth'))
decoder = dict(
    type='BEVDecoder',
    backbone=dict(type='GeneralizedResNet', in_channels=channels),
    neck=dict(type='LSSFPN'))
head = dict(type='BEVMapHead', in_channels=256, source=dict(features, resolution=0.8))
model = dict(
    type='BEVModel',
    camera_branch=dict(
        type='CameraBranch',
        encoder=dict(type='ImageEncoder', backbone=swin, neck=dict(type='GeneralizedLSSFPN')),
        view_transform=dict(
            type='LiftSplat', channels=channels, resolution=0.4, **features,
            compressor=dict(type='BEVDownsample', channels=channels))),
    bev_encoder=decoder,
    head=head)
