"""Arrays of Slurm."""
from pathlib import Path

from mmdet3d_plugin.experiments.experiment import Experiment, Training
from mmdet3d_plugin.experiments.slurm import slurm_script


def test_students_wait_for_their_teachers():
    experiment = Experiment('t', (), (0, 1), dict(
        student=dict(teacher='teacher'), teacher={}, plain={}))
    tasks = [Training(name, seed, Path(), None) for name in
             experiment.with_parents(['student', 'plain']) for seed in (0, 1)]
    assert [task.name for task in tasks] == ['teacher'] * 2 + ['plain'] * 2 + ['student'] * 2
    lines = slurm_script(experiment, tasks, ['file.py']).splitlines()
    submit = [line for line in lines if 'sbatch --parsable' in line]
    assert ' --array=0-3 ' in submit[0] and '--dependency' not in submit[0]
    assert ' --dependency=afterany:"${job%%;*}" --array=4-5 ' in submit[1]
    assert "file.py --task \"$SLURM_ARRAY_TASK_ID\"'" in submit[1]
