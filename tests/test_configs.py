"""Every config of the repository builds, agrees with itself and keeps its promises."""
import re
from pathlib import Path

import pytest
from mmdet3d.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config

from mmdet3d_plugin.engine.config import check_config
from mmdet3d_plugin.geometry import BEVGrid

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/*/*.py')
                 if path.parent.name != '_base_')
NAME = re.compile(r'[a-z0-9]+_(teacher|student|distill)_[a-z0-9-]+_'
                  r'(dur360bev|kitti360|nuscenes|toytown|keyframe)(_[a-z0-9-]+)*')


@pytest.fixture(params=CONFIGS)
def config(request):
    return Config.fromfile(ROOT / request.param)


def pipelines(config):
    return [config[f'{split}_dataloader'].dataset.pipeline for split in ('train', 'val', 'test')]


def test_there_are_configs():
    assert len(CONFIGS) >= 6


@pytest.mark.parametrize('name', CONFIGS)
def test_name(name):
    assert NAME.fullmatch(Path(name).stem), f'{name}: not model_role_backbone_data'


def test_every_full_config_has_a_tiny_sibling():
    stems = [NAME.fullmatch(Path(name).stem) for name in CONFIGS]
    tiny = {match[1] for match in stems if match[2] == 'toytown'}
    assert tiny == {'teacher', 'student', 'distill'}


def test_builds_and_grids_agree(config):
    check_config(config)
    model = MODELS.build(config.model)
    student = getattr(model, 'student', model)
    for transforms in pipelines(config):
        for transform in transforms:
            TRANSFORMS.build(transform)
        targets, = (t for t in transforms if t['type'] == 'RasterizeBEV')
        assert BEVGrid(**targets['grid']) == student.grid
    for dataloader in (config.train_dataloader, config.val_dataloader):
        assert DATASETS.get(dataloader.dataset.type)
    METRICS.build(config.val_evaluator)


def test_taps_resolve_in_the_real_teacher(config):
    model = MODELS.build(config.model)
    if config.model.type == 'Distiller':
        model.build_teacher()
        assert model.taps()
        assert (ROOT / config.model.teacher.config).is_file()


def test_a_student_is_tested_without_lidar(config):
    model = config.model.get('student', config.model)
    if 'lidar_branch' not in model:
        for transforms in pipelines(config)[1:]:
            assert not {'LoadOusterScan', 'BuildLiDARImage'} & {t['type'] for t in transforms}


def test_best_checkpoint_follows_the_metric(config):
    assert config.default_hooks.checkpoint.save_best == 'bev/IoU100'
    assert set(config.val_evaluator.ranges) == {100, 50, 20}
