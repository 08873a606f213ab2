"""What is newest or best is told by training step: clocks go back, folders are copied."""
import json
import os

from mmdet3d_plugin.distillation.teacher import _best_in
from mmdet3d_plugin.experiments.experiment import read_metrics
from mmdet3d_plugin.visualization.curves import find_log

STARTS = (('20261025_025000', 250, 7.0), ('20261025_021000', 500, 42.0))
"""A run that was killed, and resumed 20 minutes later, after the clocks were put back."""


def write_logs(folder, starts=STARTS):
    for name, step, value in starts:
        records = json.dumps(dict(loss=1.0, iter=step, step=step)) + '\n' + json.dumps(
            {'bev/IoU100': value, 'step': step}) + '\n'
        for log in ('scalars', name):
            path = folder / name / 'vis_data' / f'{log}.json'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(records)


def touch(path, seconds):
    os.utime(path, (seconds, seconds))


def test_metrics_are_those_of_the_last_step(tmp_path):
    write_logs(tmp_path / 'back')
    assert read_metrics(tmp_path / 'back', ['bev/IoU100']) == {'bev/IoU100': 42.0}
    write_logs(tmp_path / 'forth', [(name, *rest) for (name, *_), (_, *rest) in zip(
        STARTS, reversed(STARTS))])
    assert read_metrics(tmp_path / 'forth', ['bev/IoU100']) == {'bev/IoU100': 42.0}


def test_the_log_of_a_work_dir_is_that_of_the_last_step(tmp_path):
    write_logs(tmp_path)
    logs = [tmp_path / name / 'vis_data' / f'{name}.json' for name, *_ in STARTS]
    for times in ((1, 2), (2, 1)):
        for log, seconds in zip(logs, times):
            touch(log, seconds)
        assert find_log(tmp_path) == logs[1]


def test_the_best_checkpoint_is_that_of_the_last_step(tmp_path):
    names = ('best_bev_IoU100_iter_900.pth', 'best_bev_IoU100_iter_1000.pth', 'best_mine.pth')
    for times in ((1, 2, 3), (3, 2, 1)):
        for name, seconds in zip(names, times):
            (tmp_path / name).touch()
            touch(tmp_path / name, seconds)
        assert _best_in(str(tmp_path)) == str(tmp_path / 'best_bev_IoU100_iter_1000.pth')
