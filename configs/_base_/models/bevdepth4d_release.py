# BEVDet's BEVDepth4D as released: past maps warped, cells at their lower corners, positions from
# corner to corner, lower edges of the bins, indices truncated towards zero, Scale-NMS.
_base_ = ['./bevdepth4d.py']

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    camera_branch=dict(
        align='warp', warp_pixel='corner',
        view_transform=dict(rounding='trunc', pixel='corner', bins='lower')),
    head=dict(
        average_over_processes=False,
        train_cfg=dict(rounding='trunc'),
        test_cfg=dict(
            post_center_range=(-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
            nms_type=('rotate', 'rotate', 'rotate', 'circle', 'rotate', 'rotate'),
            nms_thr=(0.2, 0.2, 0.2, 0.2, 0.2, 0.5), squared_radius=1.0,
            scale_factors=(1.0, 0.7, (0.4, 0.55), 1.1, 1.0, (4.5, 9.0)))),
    aux_losses=dict(depth=dict(weight=100.0, activation='sigmoid', average='all', cell='round')))
