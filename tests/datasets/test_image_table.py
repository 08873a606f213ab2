"""Past images from the converter's table of all images."""
import shutil

import numpy as np
import pytest

from mmdet3d_plugin.datasets.bev_dataset import NuScenesBEVDataset
from mmdet3d_plugin.datasets.transforms import LoadMultiViewImages
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import rigid

TABLE = 'nuscenes_images_train.npz'


def dataset(root, frame='lidar', **kwargs):
    return NuScenesBEVDataset('nuscenes_infos_train.pkl', str(root), frame=frame,
                              image_table=TABLE, test_mode=True, **kwargs)


def test_entries_are_older_and_older_and_end_with_the_scene(toytown_nuscenes):
    data = dataset(toytown_nuscenes)
    lengths = []
    for n in range(len(data)):
        info = data.get_data_info(n)
        sweeps = info['image_sweeps']
        ages = info['timestamp'] - sweeps.times
        assert (np.diff(ages) > 0).all() and (ages > 0).all()
        assert [entry['timestamp'] for entry in sweeps] == sweeps.times.tolist()
        lengths.append(len(sweeps))
    assert min(lengths) == 0 and max(lengths) > 1
    assert lengths.count(0) == len({data.get_data_info(n)['scene_token']
                                    for n in range(len(data))})


def test_key_frames_among_the_entries_are_the_images_of_frames_before(toytown_nuscenes):
    data = dataset(toytown_nuscenes)
    infos = [data.get_data_info(n) for n in range(len(data))]
    keys = {tuple(camera['img_path'] for camera in info['images'].values()) for info in infos}
    seen = 0
    for info in infos:
        sweeps = info['image_sweeps']
        for n, is_key in enumerate(sweeps.is_key):
            paths = tuple(camera['img_path'] for camera in sweeps[n]['images'].values())
            assert (paths in keys) == is_key
            seen += is_key
    assert seen > 0


@pytest.mark.parametrize('frame', ['lidar', 'ego'])
def test_extrinsics_bring_points_of_now_into_past_images(toytown_nuscenes, frame):
    """A point that stands still, by way of the world."""
    data = dataset(toytown_nuscenes, frame)
    info = next(info for info in map(data.get_data_info, range(len(data)))
                if len(info['image_sweeps']) > 1)
    point = np.array([[8.0, 3.0, -1.0]])
    lidar2global = np.array(info['ego2global']) @ np.array(info['lidar_points']['lidar2ego'])
    world = rigid.apply(lidar2global, point)
    with np.load(toytown_nuscenes / TABLE) as file:
        table = dict(file)
    for entry in info['image_sweeps']:
        for name, camera in entry['images'].items():
            row = table[f'{name}.path'].tolist().index(
                camera['img_path'][len(str(toytown_nuscenes)) + 1:].encode())
            cam2global = table[f'{name}.ego2global'][row] @ table[f'{name}.cam2ego'][row]
            expected = rigid.apply(np.linalg.inv(cam2global), world)
            np.testing.assert_allclose(rigid.apply(camera['lidar2cam'], point), expected,
                                       atol=1e-6)
            assert abs(camera['timestamp'] - entry['timestamp']) < 0.1


def test_images_are_loaded(toytown_nuscenes):
    data = dataset(toytown_nuscenes, pipeline=[
        LoadMultiViewImages(cameras=['CAM_FRONT', 'CAM_BACK'], num_past=1, key_frames=True)])
    intervals = []
    for n in range(len(data)):
        results = data[n]
        assert [camera['time'] for camera in results['cameras']] == [0, 0, 1, 1]
        assert len(results['img']) == 4
        intervals.append(results['past_interval'])
    assert min(intervals) == 1 / 12 and max(intervals) == pytest.approx(0.5, abs=0.1)


def test_a_subset_has_its_own_past(toytown_nuscenes):
    whole, some = dataset(toytown_nuscenes), dataset(toytown_nuscenes, indices=[2, 1])
    for n, m in enumerate((2, 1)):
        ours, theirs = some.get_data_info(n), whole.get_data_info(m)
        assert ours['token'] == theirs['token']
        assert ours['image_sweeps'].times.tolist() == theirs['image_sweeps'].times.tolist()


def test_a_table_that_does_not_fit(toytown_nuscenes, tmp_path):
    with pytest.raises(UserError, match='no_table.npz: not a readable table of images.*write it'):
        NuScenesBEVDataset('nuscenes_infos_train.pkl', str(toytown_nuscenes),
                           image_table='no_table.npz')
    shutil.copy(toytown_nuscenes / 'nuscenes_infos_train.pkl', tmp_path)
    shutil.copy(toytown_nuscenes / 'nuscenes_images_val.npz', tmp_path / TABLE)
    with pytest.raises(UserError, match='the table of other frames than those of the info file'):
        dataset(tmp_path)
    with np.load(toytown_nuscenes / TABLE) as file:
        columns = {name: file[name] for name in file.files if name != 'token'}
    np.savez(tmp_path / TABLE, **columns)
    with pytest.raises(UserError, match='no tokens of frames, as an older version wrote it'):
        dataset(tmp_path)
