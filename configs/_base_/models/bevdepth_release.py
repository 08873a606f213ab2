# Megvii's BEVDepth as released: positions from corner to corner, lower edges of the bins, indices
# truncated towards zero, circle NMS.
_base_ = ['./bevdepth.py']

# Rarely -------------------------------------------------------------------------------------------
model = dict(
    camera_branch=dict(view_transform=dict(rounding='trunc', pixel='corner', bins='lower')),
    head=dict(
        train_cfg=dict(rounding='trunc'),  # all codes weigh 1, though files of 2022 had 0.5 in vel
        test_cfg=dict(
            post_center_range=(-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
            nms_type='circle', squared_radius=(4, 12, 10, 1, 0.85, 0.175))),
    aux_losses=dict(depth=dict(cell='floor', nearest='any', border=1.0)))
