"""Every config of the repository builds, agrees with itself and keeps its promises."""
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from mmdet3d.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmdet3d_plugin.engine.config import check_config
from mmdet3d_plugin.geometry import BEVGrid
from mmdet3d_plugin.models import LiDARImageBranch, VoxelBranch

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/*.py')
                 if not {'_base_', 'experiments'} & set(path.parts))
NAME = re.compile(r'(?P<model>[a-z0-9]+)_(?P<role>teacher|student|distill)_(?P<net>[a-z0-9-]+)_'
                  r'(?P<schedule>\d+(k|e|it))_(?P<data>dur360bev|kitti360|nuscenes|toytown)'
                  r'(_[a-z0-9-]+)*')
TINY = [name for name in CONFIGS if '_toytown' in name and '_distill_' not in name]
LIDAR = {'LoadOusterScan', 'LoadPointCloud', 'LoadSweeps', 'LoadVirtualPoints', 'BuildLiDARImage',
         'SphericalLiDARImage'}

# Image encoders of KD360-VoxelBEV: parameters in the authors' release, without EfficientNet-B0's
# classifier (1 281 000). Its whole B4 does not run; here it is ImageNet's (19 341 616) without the
# classifier (1 793 000) and with the projection (229 504).
ENCODERS = {'student_effb0': 5_452_516 - 1_281_000, 'student_effb0-s8': 1_190_880,
            'student_effb4-s8': 4_048_784, 'student_r50': 18_046_144, 'student_r101': 37_038_272,
            'student_effb4': 19_341_616 - 1_793_000 + 229_504}


def build(name):
    """The model without the time of drawing weights that no test here looks at."""
    init_default_scope('mmdet3d')
    config = Config.fromfile(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        for draw in ('kaiming_uniform_', 'uniform_'):
            patch.setattr(torch.nn.init, draw, lambda tensor, *args, **kwargs: tensor)
        model = MODELS.build(config.model)
        if config.model.type == 'Distiller':
            model.build_teachers()  # resolves the teacher's taps, compares grid and normalisation
    return config, model


@pytest.fixture(scope='module', params=CONFIGS)
def built(request):
    config, model = build(request.param)
    return SimpleNamespace(config=config, model=model)


def datasets(config):
    """Of train, val and test, out of their wrappers."""
    found = [config[f'{split}_dataloader'].dataset for split in ('train', 'val', 'test')]
    return [dataset.get('dataset', dataset) for dataset in found]


def pipelines(config):
    return [dataset.pipeline for dataset in datasets(config)]


def metrics(config):
    found = config.val_evaluator
    return found if isinstance(found, list) else [found]


def types(transforms):
    return {transform['type'] for transform in transforms}


def test_there_are_configs():
    roles = {(match['role'], match['data']) for match in map(NAME.fullmatch, map(stem, CONFIGS))}
    assert {(role, data) for role in ('teacher', 'student', 'distill')
            for data in ('dur360bev', 'kitti360', 'toytown')} <= roles


def stem(name):
    return Path(name).stem


@pytest.mark.parametrize('name', CONFIGS)
def test_name(name):
    assert NAME.fullmatch(stem(name)), f'{name}: not model_role_backbone_schedule_data'


def test_names_and_grids_agree(built):
    check_config(built.config)
    student = getattr(built.model, 'student', built.model)
    for transforms in pipelines(built.config):
        for transform in transforms:
            TRANSFORMS.build(transform)
        makers = [t for t in transforms if t['type'] in ('RasterizeBEV', 'RasterizeMap')]
        assert len(makers) == any(field.startswith('gt_bev.') for field in student.head.gt_fields)
        assert all(BEVGrid(**maker['grid']) == student.grid for maker in makers)
    for dataset in datasets(built.config):
        assert DATASETS.get(dataset.type)
    for metric in metrics(built.config):
        METRICS.build(metric)


def test_distillation_has_taps_and_an_existing_teacher(built):
    if built.config.model.type == 'Distiller':
        assert built.model.taps() and built.model.terms
        assert (ROOT / built.config.model.teacher.config).is_file()
        assert any(tap.role == 'student' for tap in built.model.taps())


def test_lidar_channels_agree(built):
    """Image, normalisation and first layer; a distiller's image is its teacher's."""
    made = [t for t in pipelines(built.config)[0] if 'LiDARImage' in t['type']]
    reader = built.model.teacher.model if hasattr(built.model, 'student') else built.model
    assert bool(made) == isinstance(reader.lidar_branch, LiDARImageBranch)
    for transform in made:
        adapter = reader.lidar_branch.encoder.input_proj
        channels = 3 if adapter is None else adapter.in_channels
        assert len(transform['channels']) == channels
        assert len(built.model.data_preprocessor.lidar_std) == channels


def test_a_camera_model_is_tested_without_lidar(built):
    if getattr(built.model, 'student', built.model).lidar_branch is None:
        for transforms in pipelines(built.config)[1:]:
            assert not LIDAR & types(transforms)


def test_a_lidar_model_loads_no_image(built):
    if getattr(built.model, 'student', built.model).camera_branch is None:
        for transforms in pipelines(built.config):
            assert not any('Panorama' in name or 'MultiView' in name for name in types(transforms))


def test_a_voxel_model_loads_points(built):
    reader = built.model.teacher.model if hasattr(built.model, 'student') else built.model
    if isinstance(reader.lidar_branch, VoxelBranch):
        assert {'LoadPointCloud', 'LoadSweeps', 'PointShuffle'} <= types(pipelines(built.config)[0])
        assert 'points' in pipelines(built.config)[0][-1]['keys']


def test_best_checkpoint_follows_the_metric(built):
    best, metric = built.config.default_hooks.checkpoint.save_best, metrics(built.config)[0]
    if metric.type == 'MapIoUMetric':
        assert best == 'map/mean'
        assert metric.classes == getattr(built.model, 'student', built.model).head.classes
    elif metric.type == 'NuScenesDetectionMetric':
        assert best in ('det/mAP', 'det/NDS')
        assert set(metric.classes) == set(getattr(built.model, 'student', built.model
                                                  ).head.class_names)
    else:
        assert best == 'bev/IoU100' and set(metric.ranges) == {100, 50, 20}


METRICS_OF = {'KD360-VoxelBEV': {'IoU100', 'IoU50', 'IoU20'}, 'BridgeTA': {'mIoU'},
              **dict.fromkeys(('BEVDepth', 'BEVDepth4D', 'BEV-LGKD', 'CenterPoint'),
                              {'mAP', 'NDS'})}


def metafile_models():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    return [model for path in index['Import']
            for model in yaml.safe_load((ROOT / path).read_text())['Models']]


def test_metafile():
    models = metafile_models()
    assert len({model['Name'] for model in models}) == len(models) >= 17
    for model in models:
        assert model['Config'] in CONFIGS and stem(model['Config']) == model['Name']
        for result in model['Results']:
            assert set(result['Metrics']) == METRICS_OF[model['In Collection']]
            assert result['Source'] in ('paper', 'release', 'ours')
            ours = result['Source'] == 'ours'
            assert ours == ('Command' in result) == ('toytown' in model['Name'])
            assert model['Config'] in result.get('Command', model['Config'])


def test_parameters_in_the_metafile(built, request):
    name = stem(request.node.callspec.params['built'])
    count = sum(p.numel() for p in getattr(built.model, 'student', built.model).parameters())
    for model in metafile_models():
        if model['Name'] == name and '/release/' not in request.node.callspec.params['built']:
            assert model['Metadata']['Parameters'] == count


@pytest.mark.parametrize('name', ENCODERS)
def test_parameters_of_the_encoders(name):
    _, model = build(f'configs/kd360/kd360_{name}_12k_dur360bev.py')
    count = sum(p.numel() for p in model.camera_branch.encoder.parameters())
    assert count == ENCODERS[name]
    # compressor, BEV encoder and heads; the release's decoder less its dead feature head
    assert sum(p.numel() for p in model.parameters()) - count == 1_179_648 + 3_830_788 - 163_968 + 3


@pytest.mark.parametrize('name', TINY)
def test_a_step_of_every_tiny_model(name, world_of):
    config = Config.fromfile(ROOT / name)
    config.train_dataloader.dataset.data_root = str(world_of(config))
    dataset = DATASETS.build(config.train_dataloader.dataset)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    data = model.data_preprocessor(pseudo_collate([dataset[0], dataset[3]]), True)
    losses = model(**data, mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    idle = [key for key, value in model.named_parameters() if value.grad is None]
    assert idle == []
