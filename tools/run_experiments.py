"""Run an experiment: every training of a table, over several seeds, and the table itself.

    python tools/run_experiments.py FILE [--list] [--only NAME ...] [--seeds 0 1 2] [--jobs N]
    python tools/run_experiments.py FILE --slurm-array    # a cluster instead of this machine
    python tools/run_experiments.py FILE --table          # of what is finished

FILE is a config with ``title``, ``metrics``, ``seeds`` and ``runs``; see docs/experiments.md. A run
is one ``tools/train.py`` per seed in ``WORK_DIR/NAME/seed_S``. What is finished is skipped, what
was interrupted is resumed, a teacher is trained before its students, and where one run fails the
others go on.
"""
import argparse
import os
import shlex
import shutil
from pathlib import Path
from typing import List

from mmdet3d_plugin.engine.cli import CfgOptions, run_tool
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.experiments.experiment import (
    Experiment,
    TrainingRunner,
    check_models,
    check_seeds,
    describe,
    make_trainings,
    refuse_changed,
)
from mmdet3d_plugin.experiments.jobs import write_text
from mmdet3d_plugin.experiments.slurm import slurm_script
from mmdet3d_plugin.experiments.tables import write_table
from mmdet3d_plugin.locking import locked

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('file', type=Path, help='experiment file')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='runs, with those that they need')
    parser.add_argument('--seeds', nargs='+', type=int, help="default: the file's")
    parser.add_argument('--work-dir', type=Path,
                        help='default: work_dirs/experiments/<name of the file>')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time (default: 1)')
    parser.add_argument('--redo', nargs='*', metavar='NAME',
                        help='remove the results of these runs and of their students first; '
                        'default: of those whose config has changed')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='to override in the config of every run')
    parser.add_argument('--keep', nargs='*', metavar='NAME',
                        help='count results of these runs although their config has changed; '
                        'default: all')
    todo = parser.add_mutually_exclusive_group()
    todo.add_argument('--list', action='store_true', help='show the trainings and their state')
    todo.add_argument('--table', action='store_true', help='write the table of what is finished')
    todo.add_argument('--task', type=int, help='train only the task of this number of --list')
    todo.add_argument('--slurm-array', action='store_true',
                      help='write WORK_DIR/slurm.sh, which submits every training')
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error('expected --jobs of at least 1')
    return args


def short(path: Path) -> Path:
    """The path from the repository's root where it is below it."""
    path = path.resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def command_of(args: argparse.Namespace, work_dir: Path) -> List[str]:
    """The arguments that choose the trainings, to repeat them elsewhere."""
    words = [str(short(args.file)), '--work-dir', str(work_dir)]
    for flag in ('only', 'seeds'):
        if getattr(args, flag):
            words += [f'--{flag}', *map(str, getattr(args, flag))]
    if args.cfg_options:
        words += ['--cfg-options', *(f'{k}={v}' for k, v in args.cfg_options.items())]
    return words


def keep_or_redo(args: argparse.Namespace, experiment: Experiment, trainings: list) -> None:
    """What --keep and --redo say of trainings whose config has changed, and of others."""
    changed = [training.name for training in trainings if training.status() == 'changed']
    for training in trainings:
        if args.keep is not None and training.name in set(args.keep or changed) & set(changed):
            training.note()
        if args.redo is not None and training.folder.is_dir() and set(
                experiment.with_parents([training.name])) & set(args.redo or changed):
            with locked(training.lock, training.busy):
                print(f'removing {training.folder}')
                shutil.rmtree(training.folder)
    refuse_changed(trainings)


def main() -> None:
    args = parse_args()
    experiment = Experiment.read(args.file)
    for flag in ('only', 'redo', 'keep'):
        experiment.check_names(getattr(args, flag) or (), f'--{flag}')
    check_seeds(args.seeds or (), '--seeds')
    work_dir = short(args.work_dir or ROOT / 'work_dirs' / 'experiments' / args.file.stem)
    command = command_of(args, work_dir)
    os.chdir(ROOT)
    trainings = make_trainings(experiment, args.only or list(experiment.runs),
                               args.seeds or experiment.seeds, work_dir, args.cfg_options)
    if args.list:
        for index, training in enumerate(trainings):
            status = training.status()
            print(f'{index:3d}  {training.name:28s} seed {training.seed}  {status:12s}'
                  f'{describe(training.result["metrics"]) if status == "finished" else ""}')
        return
    keep_or_redo(args, experiment, trainings)
    if args.slurm_array:
        write_text(work_dir / 'slurm.sh', slurm_script(experiment, trainings, command))
        script = ROOT / work_dir / 'slurm.sh'
        return print(f'wrote {script} for {len(trainings)} trainings; submit them with\n'
                     f'bash {script} --partition=... --gres=gpu:1')
    if args.task is not None and not 0 <= args.task < len(trainings):
        raise UserError(f'--task {args.task}: there are tasks 0 to {len(trainings) - 1}')
    runner = TrainingRunner(trainings if args.task is None else [trainings[args.task]], args.jobs)
    if not args.table:
        check_models(runner.jobs)
        runner.run()
    if args.task is None:
        write_table(experiment, trainings, work_dir,
                    shlex.join(['python', 'tools/run_experiments.py', *command]))
    if runner.failed:
        for name, why in runner.failed.items():
            print(f'{name}: {why}')
        raise UserError(f'{len(runner.failed)} of {len(runner.jobs)} trainings failed, for the '
                        'reasons above; the same command tries them again')


if __name__ == '__main__':
    run_tool(main)
