import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.logging import MMLogger

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.evaluation import MapIoUMetric


def sample(pred, truth):
    return dict(pred_bev=dict(seg=torch.tensor(pred)), gt_bev=dict(seg=torch.tensor(truth)))


def test_best_threshold_of_each_class_over_the_data_set():
    metric = MapIoUMetric(('road', 'line'), (0.4, 0.6))
    # road: 0.4 finds 3 of 3 and 1 wrong, 0.6 finds 1; line: 0.4 has 1 of 2 and 2 wrong, 0.6 1 of 2
    metric.process({}, [
        sample([[[0.9, 0.5, 0.4, 0.0]], [[0.6, 0.5, 0.0, 0.0]]],
               [[[1.0, 1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 1.0]]]),
        sample([[[0.5, 0.0, 0.0, 0.0]], [[0.5, 0.0, 0.0, 0.0]]],
               [[[1.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]])])
    scores = metric.compute_metrics(metric.results)
    assert scores['road_0.40'] == 75.0 and scores['road_0.60'] == pytest.approx(100 / 3)
    assert scores['line_0.40'] == 25.0 and scores['line_0.60'] == 50.0
    assert (scores['road'], scores['line'], scores['mean']) == (75.0, 50.0, 62.5)


def test_one_array_of_whole_numbers_for_each_sample():
    metric = MapIoUMetric(('road', ))
    metric.process({}, [sample([[[0.35, 0.3499]]], [[[1.0, 1.0]]])] * 3)
    assert len(metric.results) == 3 and metric.results[0].dtype == 'int64'
    assert metric.results[0][0, 0].tolist() == [1, 0, 1]  # at least the threshold


SIZE = 5


def drawn(index):
    generator = torch.Generator().manual_seed(index)
    draw = torch.rand(2, 2, 30, 40, generator=generator)
    return dict(pred_bev=dict(seg=draw[0]), gt_bev=dict(seg=(draw[1] > 0.6).float()))


def measure(rank, processes, folder):
    """One process's part of an evaluation of five samples; the first writes the scores."""
    if processes > 1:
        torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank,
                                             world_size=processes)
    metric = MapIoUMetric(('road', 'line'))
    for index in DefaultSampler(range(SIZE), shuffle=False):
        metric.process({}, [drawn(index)])
    assert len(metric.results) == -(-SIZE // processes)
    assert all(counts.dtype == 'int64' for counts in metric.results)
    scores = metric.evaluate(SIZE)
    if rank == 0:
        torch.save(scores, f'{folder}/scores_{processes}.pth')


def test_two_processes_count_each_of_five_samples_once(tmp_path):
    """The sampler gives the second process a sixth, which is the first again."""
    measure(0, 1, tmp_path)
    torch.multiprocessing.start_processes(measure, (2, str(tmp_path)), 2, start_method='fork')
    one, two = (torch.load(tmp_path / f'scores_{n}.pth') for n in (1, 2))
    assert one == two and len(one) == 1 + 2 * 8
    assert 0 < one['map/line'] < 50  # cells of both are drawn at random


def test_counts_stay_exact_beyond_24_bits():
    metric = MapIoUMetric(('road', ), (0.5, ))
    counts = [torch.tensor([[[2**24 + 1, 1, 0]]]).numpy()] * 3
    assert metric.compute_metrics(counts)['road'] == 100 * 3 * (2**24 + 1) / (3 * (2**24 + 2))


@pytest.mark.parametrize('pred', [0.0, 1.0])
def test_a_class_that_never_occurs_has_no_score(pred, capsys):
    MMLogger.get_instance('map')
    metric = MapIoUMetric(('road', ))
    metric.process({}, [sample([[[pred]]], [[[0.0]]])])
    assert np.isnan(list(metric.compute_metrics(metric.results).values())).all()
    assert 'MapIoUMetric: no ground truth: nothing to score' in ''.join(capsys.readouterr())
    metric = MapIoUMetric(('road', 'line'))
    metric.process({}, [sample([[[pred]], [[0.9]]], [[[0.0]], [[1.0]]])])
    scores = metric.compute_metrics(metric.results)
    assert scores['mean'] == scores['line'] == 100.0 and np.isnan(scores['road'])
    assert 'no score for road' in ''.join(capsys.readouterr())


def test_errors():
    metric = MapIoUMetric(('road', ))
    with pytest.raises(UserError, match='no gt_bev; evaluation needs RasterizeMap'):
        metric.process({}, [dict(pred_bev=dict(seg=torch.zeros(1, 1, 1)))])
    with pytest.raises(UserError, match=r'prediction \(2, 1, 1\), ground truth \(1, 1, 1\)'):
        metric.process({}, [sample([[[0.0]], [[0.0]]], [[[0.0]]])])
