import pickle

import numpy as np
import pytest
from mmdet3d.registry import DATASETS
from mmengine.logging import MMLogger

from data_converter.nuscenes import CLASSES
from mmdet3d_plugin.engine.reproducible import Draw
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.structures import load_infos


@pytest.fixture
def write(toytown_nuscenes, tmp_path):
    """Write an info file whose frame n has one object of each of the classes ``labels[n]``."""
    def infos_of(labels):
        infos = load_infos(str(toytown_nuscenes / 'nuscenes_infos_train.pkl'))
        frames = infos['data_list']
        some = next(i for frame in frames for i in frame['instances'])
        infos['data_list'] = [
            dict(frames[0], token=str(n), sample_idx=n, instances=[
                dict(some, bbox_label_3d=label) for label in there])
            for n, there in enumerate(labels)]
        path = tmp_path / 'infos.pkl'
        path.write_bytes(pickle.dumps(infos))
        return dict(type='NuScenesBEVDataset', data_root=str(toytown_nuscenes), pipeline=[],
                    ann_file=str(path), metainfo=dict(classes=CLASSES))
    return infos_of


def tokens(dataset):
    return [dataset.get_data_info(n)['token'] for n in range(len(dataset))]


def test_draws_are_those_of_mmdet3d(write):
    everything = list(range(10))
    cfg = write([everything, [0], [0, 1], [], [0], everything[:5]] * 5)
    np.random.seed(3)  # noqa: NPY002
    theirs = tokens(DATASETS.build(dict(type='CBGSDataset', dataset=cfg)))
    ours = tokens(DATASETS.build(dict(type='CBGSBEVDataset', dataset=cfg, seed=3)))
    assert ours == theirs and len(ours) > 30
    assert tokens(DATASETS.build(dict(type='CBGSBEVDataset', dataset=cfg, seed=4))) != ours


def test_classes_without_objects_are_left_out(write, capsys):
    MMLogger.get_instance('cbgs')
    cfg = write([[0]] * 6 + [[7]] * 2 + [[]])
    found = tokens(DATASETS.build(dict(type='CBGSBEVDataset', dataset=cfg)))
    assert len(found) == 8 and sum(token in ('6', '7') for token in found) == 4
    text = ''.join(capsys.readouterr())
    assert 'CBGSBEVDataset: no object of truck, trailer, bus, ' in text
    with pytest.raises(UserError, match='CBGSBEVDataset: no frame of .*infos.pkl has an object of '
                       'car, truck'):
        DATASETS.build(dict(type='CBGSBEVDataset', dataset=write([[], []])))


def test_the_seed_of_an_index_reaches_the_frame(write, monkeypatch):
    dataset = DATASETS.build(dict(type='CBGSBEVDataset', dataset=write([[0], [0], [1]])))
    seen = []
    monkeypatch.setattr(type(dataset.dataset), '__getitem__',
                        lambda self, index: seen.append((int(index), getattr(index, 'seed', None))))
    dataset[Draw(1, 77)], dataset[0]
    assert seen == [(dataset.sample_indices[1], 77), (dataset.sample_indices[0], None)]
