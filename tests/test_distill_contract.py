"""The contract of every distillation config, on twenty real optimiser steps of its tiny form."""
import copy
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from mmdet3d_plugin.distillation import DualPathTerm

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.relative_to(ROOT).as_posix()
                 for path in ROOT.glob('configs/*/*_distill_*_toytown*.py'))
STEPS = 20


def teachers_of(config):
    model = config.model
    return dict(model.get('teachers', {}), **dict(teacher=model.teacher) if model.get('teacher')
                else {})


class Setting:
    """A tiny distillation with a random teacher, and batches of toytown."""

    def __init__(self, name, data_root, folder):
        init_default_scope('mmdet3d')
        torch.manual_seed(0)
        self.config = Config.fromfile(ROOT / name)
        for role, cfg in teachers_of(self.config).items():
            teacher = MODELS.build(Config.fromfile(ROOT / cfg.config).model)
            teacher.init_weights()
            torch.save(dict(state_dict=teacher.state_dict()), folder / f'{role}.pth')
            cfg.checkpoint = str(folder / f'{role}.pth')
        dataset = self.config.train_dataloader.dataset
        dataset.data_root, self.data_root = str(data_root), data_root
        self.dataset = DATASETS.build(dataset)
        self.frames = {}
        self.model = MODELS.build(self.config.model)
        self.model.init_weights()
        self.model.train()

    def batch(self, *indices):
        for index in indices:
            if index not in self.frames:
                self.frames[index] = self.dataset[index]
        return pseudo_collate([copy.deepcopy(self.frames[index]) for index in indices])

    def losses(self, batch):
        return self.model(**self.model.data_preprocessor(copy.deepcopy(batch), True), mode='loss')


@pytest.fixture(scope='module', params=CONFIGS)
def setting(request, world_of, tmp_path_factory):
    root = world_of(Config.fromfile(ROOT / request.param))
    return Setting(request.param, root, tmp_path_factory.mktemp('teacher'))


@pytest.fixture(scope='module')
def trained(setting):
    """State before and after the steps; later tests look at what moved."""
    before = copy.deepcopy(setting.model.state_dict())
    teachers = {role: copy.deepcopy(teacher.model.state_dict())
                for role, teacher in setting.model.teachers.items()}
    optimizer = build_optim_wrapper(setting.model, setting.config.optim_wrapper)
    for step in range(STEPS):
        data = setting.batch(step % 4, (step + 1) % 4)
        setting.model.train_step(data, optimizer)
    return before, teachers


def test_there_is_a_config():
    assert CONFIGS


def test_each_term_alone_reaches_the_student(setting):
    batch = setting.batch(0, 1)
    for name in setting.model.terms:
        setting.model.zero_grad()
        loss = sum(value for key, value in setting.losses(batch).items() if key == f'loss_{name}')
        loss.backward()
        gradients = [p.grad.abs().sum() for p in setting.model.student.camera_branch.parameters()
                     if p.grad is not None]
        assert sum(gradients) > 0, name


def test_teacher_is_bit_identical_after_training(setting, trained):
    _, teachers = trained
    assert teachers
    for role, before in teachers.items():
        after = setting.model.teachers[role].model.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_everything_that_trains_moves(setting, trained):
    before, _ = trained
    after = setting.model.state_dict()
    still = [name for name, _ in setting.model.named_parameters()
             if torch.equal(before[name], after[name])]
    assert still == []


def test_divergences_vanish_for_equal_inputs(setting):
    for term in setting.model.terms.values():
        if isinstance(term, DualPathTerm):
            feature = torch.randn(2, 4, 10, 10)
            assert term(dict.fromkeys(term.taps, feature), {})['loss'].item() == 0
            continue
        side = getattr(term.criterion, 'window', 10)
        feature = torch.randn(2, 4, side, side)
        assert term.criterion(feature, feature).item() == pytest.approx(0, abs=1e-5)


def empty(sample, fields):
    """Ground truth of a scene without objects: maps of zeros, lists without instances."""
    for field, name in (field.split('.') for field in fields):
        truth = sample.get(field)
        if isinstance(truth, PixelData):
            truth.get(name).zero_()
        else:
            sample.set_data({field: truth[:0]})


def test_an_empty_scene_gives_finite_losses(setting):
    batch = setting.batch(0, 1)
    for sample in batch['data_samples']:
        empty(sample, setting.model.student.head.gt_fields)
    batch['inputs']['points'] = [points[:0] for points in batch['inputs']['points']]
    losses = setting.losses(batch)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in setting.model.parameters())


def link_without(source, target, names):
    """A folder like another one, but for the entries of these names."""
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir() and any((entry / name).exists() for name in names):
            link_without(entry, target / entry.name, names)
        elif entry.name not in names:
            (target / entry.name).symlink_to(entry)
    return target


def test_prediction_without_teacher_and_lidar_files(setting, tmp_path, trained):
    config = copy.deepcopy(setting.config)
    for cfg in teachers_of(config).values():
        cfg.update(config='absent.py', checkpoint='absent.pth')
    model = MODELS.build(config.model)
    model.load_state_dict(setting.model.state_dict())
    camera_only = link_without(setting.data_root, tmp_path / 'camera_only',
                               ('ouster_points', 'LIDAR_TOP'))
    assert not list(camera_only.glob('**/LIDAR_TOP'))
    config.val_dataloader.dataset.data_root = str(camera_only)
    dataset = DATASETS.build(config.val_dataloader.dataset)
    sample = model.eval().test_step(pseudo_collate([dataset[0]]))[0]
    for field in model.student.head.pred_fields:
        assert all(value.isfinite().all() for _, value in sample.get(field).items())


def test_checkpoint_is_the_students_and_loads_strictly(setting, trained):
    state = setting.model.state_dict()
    assert not any('teacher' in key for key in state)
    student = MODELS.build(setting.config.model.student)
    student.load_state_dict({key[len('student.'):]: value for key, value in state.items()
                             if key.startswith('student.')})
    assert sum(p.numel() for p in student.parameters()) == sum(
        p.numel() for p in setting.model.student.parameters())


def test_a_step_in_bfloat16(setting):
    """As ``tools/train.py --amp bf16`` takes it: all losses and gradients are finite."""
    wrapper = build_optim_wrapper(setting.model, dict(setting.config.optim_wrapper,
                                                      type='BF16OptimWrapper'))
    setting.model.zero_grad()
    with wrapper.optim_context(setting.model):
        losses = setting.losses(setting.batch(0, 1))
    total = sum(value for key, value in losses.items() if 'loss' in key)
    total.backward()
    assert total.dtype == torch.float32 and total.isfinite()
    gradients = [p.grad for p in setting.model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
