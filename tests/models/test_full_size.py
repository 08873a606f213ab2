"""The full-size models: their size, and one real step on the CPU."""
import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'kd360'
TEACHER, STUDENT, DISTILL = (
    CONFIGS / f'kd360_{name}_12k_dur360bev.py'
    for name in ('teacher_r101-effb0', 'student_effb0', 'distill_effb0'))


def load(path):
    """The config without the download of ImageNet weights."""
    config = Config.fromfile(path)

    def strip(part):
        if isinstance(part, dict):
            part.pop('init_cfg', None)
            for value in part.values():
                strip(value)

    strip(config.model)
    return config


def frame():
    sample = Det3DDataSample(metainfo={
        key: dict(name=key, lens='equirect', lidar2cam=np.eye(4), height=height, width=2048,
                  fov_up=math.radians(fov), fov_down=-math.radians(fov))
        for key, height, fov in (('camera', 1024, 90), ('lidar_camera', 242, 22.5))})
    sample.set_metainfo(dict(cameras=[sample.metainfo['camera']]))
    seg = torch.zeros(1, 200, 200)
    seg[:, 75:85, 88:92] = 1
    sample.gt_bev = PixelData(seg=seg, centerness=seg.clone(), offset=torch.zeros(2, 200, 200))
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 255, (1, 3, 1024, 2048), generator=generator, dtype=torch.uint8)
    inputs = dict(img=[image], lidar_img=[torch.rand(3, 242, 2048, generator=generator)],
                  points=[torch.randn(20000, 3, generator=generator) * 8])
    return dict(inputs=inputs, data_samples=[sample])


def test_parameter_counts():
    # The release's 10 462 958 and 49 009 067 without the classifier (1 281 000) and the feature
    # head (163 968) that no output uses, three unused scalars, and SGFM's biases (256).
    counts = [sum(p.numel() for p in MODELS.build(load(path).model).parameters())
              for path in (STUDENT, TEACHER)]
    assert counts == [10_462_958 - 1_281_000 - 163_968 - 3, 49_009_067 - 1_281_000 - 163_968 - 256]


@pytest.mark.slow
def test_a_distillation_step_at_full_size(tmp_path):
    config = load(DISTILL)
    teacher = load(TEACHER)
    teacher.dump(tmp_path / 'teacher.py')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(copy.deepcopy(teacher.model)).state_dict()),
               tmp_path / 'teacher.pth')
    config.model.teacher = dict(config=str(tmp_path / 'teacher.py'),
                                checkpoint=str(tmp_path / 'teacher.pth'))
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    before = copy.deepcopy(model.state_dict())
    losses = model.train_step(frame(), build_optim_wrapper(model, config.optim_wrapper))
    assert {'loss_segmentation', 'loss_centerness', 'loss_offset', 'loss_student',
            'loss_assistant', 'loss'} == set(losses)
    assert all(loss.isfinite() for loss in losses.values())
    after = model.state_dict()
    first = next(name for name in before if name.startswith('student.camera_branch')
                 and name.endswith('conv.weight'))
    last = 'student.head.segmentation.1.weight'
    assert not any(torch.equal(before[name], after[name]) for name in (first, last))
