# Image encoders of the variants of KD360-VoxelBEV; each replaces camera_branch.encoder. Encoders
# that end at stride 16 ("s8", and the ResNets) fuse it with stride 8; the others end at stride 32.

# Rarely -------------------------------------------------------------------------------------------
width = 128  # channels of the voxels
openmmlab = 'https://download.openmmlab.com/mmclassification/v0/efficientnet/'
efficientnet_weights = dict(
    b0=f'{openmmlab}efficientnet-b0_3rdparty_8xb32_in1k_20220119-a7e2a0b1.pth',
    b4=f'{openmmlab}efficientnet-b4_3rdparty_8xb32_in1k_20220119-81fd4077.pth')
pytorch = 'https://download.pytorch.org/models/'
resnet_weights = dict(
    r50=f'{pytorch}resnet50-11ad3fa6.pth', r101=f'{pytorch}resnet101-cd907fc2.pth')


def efficientnet(arch, outs):
    return dict(type='EfficientNet', arch=arch, out_indices=outs, drop_path_rate=0.2,
                init_cfg=dict(type='Pretrained', prefix='backbone',
                              checkpoint=efficientnet_weights[arch]))


def resnet(depth):
    return dict(type='mmdet.ResNet', depth=depth, num_stages=3, strides=(1, 2, 2),
                dilations=(1, 1, 1), out_indices=(1, 2), norm_eval=False,
                init_cfg=dict(type='Pretrained', checkpoint=resnet_weights[f'r{depth}']))


def stride8(backbone, shallow, deep, mid):
    return dict(type='ImageEncoder', backbone=backbone,
                neck=dict(type='UpsampleConcat', in_channels=(shallow, deep), mid_channels=mid,
                          out_channels=width))


encoders = dict(
    effb0_s8=stride8(efficientnet('b0', (3, 4)), 40, 112, 128),
    effb4_s8=stride8(efficientnet('b4', (3, 4)), 56, 160, 128),
    effb4=dict(type='ImageEncoder', backbone=efficientnet('b4', (6, )),
               neck=dict(type='Projection', in_channels=1792, out_channels=width)),
    r50=stride8(resnet(50), 512, 1024, 512),
    r101=stride8(resnet(101), 512, 1024, 512))
