"""The main job on toytown: a world, a teacher, a student, a distilled student, and a report."""
import os
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from ..engine import latest_checkpoint
from ..structures import load_infos
from .quickstart_report import MODELS, STUDENT, TEACHER, write_report
from .stages import Stage

# Sizes; batches are the configs'. Trainings take 400 of the configs' 500 steps, so that the whole
# stays below a quarter of an hour. Seconds are expected ones on two cores.
WORLD = ('--frames 300 --sequences 60 --seed 0 --image-size 256 512 --scan-size 64 512 '
         '--supersample 2')
TRAINING: Dict[str, object] = {
    'default_hooks.checkpoint.interval': 50, 'train_cfg.max_iters': 400,
    'train_cfg.val_interval': 100, 'param_scheduler.0.total_steps': 401}
SECONDS = dict(world=90, convert=6, teacher=210, student=155, distilled=240, evaluate=57,
               report=16)
BENCHMARK = '--frames 20 --warmup 3'
PANELS = 4

SMOKE_WORLD = ('--frames 6 --sequences 3 --seed 0 --image-size 64 128 --scan-size 16 128 '
               '--supersample 1')
SMOKE_TRAINING: Dict[str, object] = {
    'default_hooks.checkpoint.interval': 2, 'default_hooks.logger.interval': 1,
    'train_cfg.max_iters': 4, 'train_cfg.val_interval': 2, 'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0, 'val_dataloader.persistent_workers': False}
SMOKE_BENCHMARK = '--frames 3 --warmup 1'
SMOKE_SECONDS = dict(world=2, convert=5, teacher=8, student=7, distilled=9, evaluate=24, report=12)

Command = Tuple[str, ...]
VEHICLES = ('car', 'bus', 'truck')


def make_stages(out: Path, smoke: bool, seed: int, keep: bool = False) -> List[Stage]:
    """The seven steps.

    Args:
        out: where everything goes; relative to the repository or absolute.
        smoke: a few iterations on a handful of frames.
        seed: of the trainings.
        keep: stop instead of removing results of other settings.
    """
    data, workers = out / 'toytown', ('--workers', str(len(os.sched_getaffinity(0))))
    world = (SMOKE_WORLD if smoke else WORLD).split()
    training = {'randomness.seed': seed, **(SMOKE_TRAINING if smoke else TRAINING)}
    values = {name: lambda name=name: [latest_checkpoint(out / name)] for name in MODELS}
    values['indices'] = lambda: [str(index) for index in choose_frames(data, PANELS)]
    stages: Dict[str, Stage] = {}

    def add(name: str, title: str, commands: Sequence[Sequence[str]], proof: str,
            folder: str = '', needs: Sequence[str] = (), configs: Sequence[str] = (),
            **options) -> None:
        stages[name] = Stage(name, title, out, commands, proof, folder,
                             [stages[need] for need in needs], configs, values, keep,
                             f'{len(stages) + 1}_{name}.log', **options)

    def train(name: str, title: str, needs: str, *options: str) -> None:
        command = _train(out, name, *options, *(f'{k}={v}' for k, v in training.items()))
        add(name, title, [command], f'{name}/last_checkpoint', name, (needs, ), (MODELS[name][1], ))

    add('world', 'write toytown, a synthetic world', [(
        'tools/create_data.py', 'toytown', '--layout', 'dur360bev', '--out-dir', str(data),
        *world, *workers)], 'toytown/metadata/toytown.json', 'toytown')
    add('convert', 'convert it, as the real data set is converted', [(
        'tools/create_data.py', 'dur360bev', '--root-path', str(data), *workers)],
        'toytown/dur360bev_infos_val.pkl', needs=('world', ))
    train('teacher', 'train the teacher (camera + LiDAR)', 'convert')
    train('student', 'train the student alone (camera)', 'convert')
    train('distilled', 'train the student with the teacher (camera)', 'teacher',
          'model.teacher.checkpoint={teacher}')
    add('evaluate', 'evaluate the three on the held-out sequences',
        [*_test(out), _benchmark(out, SMOKE_BENCHMARK if smoke else BENCHMARK)],
        'evaluation/benchmark.json', 'evaluation', tuple(MODELS), (TEACHER, STUDENT))
    add('report', 'draw the images and write the report', [_draw(out)], 'report.html', 'images',
        ('evaluate', ), after=lambda: write_report(out, stages, smoke))
    return list(stages.values())


def _roots(out: Path, *splits: str) -> Command:
    data = out / 'toytown'
    return ('--cfg-options', *(f'{split}_dataloader.dataset.data_root={data}' for split in splits))


def _train(out: Path, name: str, *options: str) -> Command:
    return ('tools/train.py', MODELS[name][1], '--work-dir', str(out / name), '--resume',
            *_roots(out, 'train', 'val'), *options)


def _test(out: Path) -> List[Command]:
    return [('tools/test.py', config, f'{{{name}}}', '--work-dir', str(out / 'evaluation' / name),
             *_roots(out, 'test')) for name, (_, _, config, _) in MODELS.items()]


def _benchmark(out: Path, options: str) -> Command:
    return ('tools/benchmark.py', *_pairs(), '--names', *MODELS, '--out',
            str(out / 'evaluation' / 'benchmark.json'), *options.split(), *_roots(out, 'test'))


def _draw(out: Path) -> Command:
    return ('tools/visualize.py', *_pairs(), '--names', *MODELS, '--out-dir', str(out / 'images'),
            '--indices', '{indices}', *_roots(out, 'test'))


def _pairs() -> Command:
    """Each model's config and checkpoint."""
    return tuple(word for name, (_, _, config, _) in MODELS.items()
                 for word in (config, f'{{{name}}}'))


def choose_frames(data: Path, count: int) -> List[int]:
    """Held-out frames for the images: from evenly spaced sequences, those with most vehicles."""
    infos = load_infos(str(data / 'dur360bev_infos_val.pkl'))
    labels = {infos['metainfo']['categories'][name] for name in VEHICLES}
    best: Dict[str, Tuple[int, int]] = {}
    for index, frame in enumerate(infos['data_list']):
        vehicles = sum(i['bbox_label_3d'] in labels for i in frame['instances'])
        best[frame['scene_token']] = max(best.get(frame['scene_token'], (-1, 0)),
                                         (vehicles, -index))
    indices = [-index for _, index in best.values()]
    return sorted({indices[n * len(indices) // count] for n in range(count)})
