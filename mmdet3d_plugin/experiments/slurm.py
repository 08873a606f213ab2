"""Experiments on a cluster with Slurm."""
import shlex
from typing import Sequence

from .experiment import Experiment, Training
from .process import ROOT


def slurm_script(experiment: Experiment, trainings: Sequence[Training],
                 command: Sequence[str]) -> str:
    """A script that submits one array per generation of parents and children, then the table.

    Args:
        experiment: whose file says which runs need which.
        trainings: in the order of their numbers.
        command: arguments of ``tools/run_experiments.py`` that choose them.
    """
    depths = [experiment.depth(training.name) for training in trainings]
    base = shlex.join(['python', 'tools/run_experiments.py', *command])
    lines = ['#!/usr/bin/env bash',
             '# bash slurm.sh [options of sbatch, such as --partition=gpu --gres=gpu:1]',
             'set -euo pipefail', f'cd {shlex.quote(str(ROOT))}']
    wait_for = ''
    for depth in sorted(set(depths)):
        first = depths.index(depth)
        last = first + depths.count(depth) - 1
        lines.append(f'job=$(sbatch --parsable {wait_for}--array={first}-{last} "$@" '
                     f'--wrap \'{base} --task "$SLURM_ARRAY_TASK_ID"\')')
        lines.append(f'echo "tasks {first} to {last}: job $job"')
        wait_for = '--dependency=afterany:"${job%%;*}" '
    lines.append(f'sbatch {wait_for}"$@" --wrap \'{base} --table\'')
    return '\n'.join(lines) + '\n'
