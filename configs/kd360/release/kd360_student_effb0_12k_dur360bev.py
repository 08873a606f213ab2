# The student as in the authors' release; projects/kd360_voxelbev/README.md lists the differences.
_base_ = [
    '../../_base_/default_runtime.py', '../../_base_/datasets/dur360bev_release.py',
    '../../_base_/models/kd360_student.py', '../../_base_/models/kd360_release.py',
    '../../_base_/schedules/kd360_release.py'
]

model = dict(
    grid=_base_.grid,
    flips=_base_.release_flips,
    camera_branch=dict(
        encoder=dict(backbone=dict(fixed_padding=True)), view_transform=_base_.release_view),
    head=_base_.release_head)
