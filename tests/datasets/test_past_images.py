"""Past images: loaded, augmented, packed, batched; with a rig of each time."""
import copy

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.dataset import pseudo_collate

from mmdet3d_plugin.datasets.bev_dataset import NuScenesBEVDataset, change_frame
from mmdet3d_plugin.datasets.transforms import (
    GlobalRotScaleTransFlip,
    ImageAug3D,
    LoadMultiViewImages,
    PackBEVInputs,
)
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import rigid
from mmdet3d_plugin.structures import validate_infos
from tests.factories import CAMERA, build

FORWARD = rigid.rigid([[0, -1, 0], [0, 0, -1], [1, 0, 0]])  # x right, y down, z forward
NAMES = ('left', 'right')


def camera(tmp_path, name, time):
    """A black image with one bright pixel, which tells camera and time; 2 m back for each time."""
    path = tmp_path / f'{name}{time}.png'
    image = np.zeros((40, 64, 3), np.uint8)
    image[10, 10 + time] = 255
    cv2.imwrite(str(path), image)
    then2now = rigid.rigid(translation=(-2.0 * time, 0.3 * NAMES.index(name), 0))
    return dict(img_path=str(path), height=40, width=64, lens='pinhole',
                cam2img=[[30, 0, 32], [0, 30, 20], [0, 0, 1]],
                lidar2cam=(FORWARD @ np.linalg.inv(then2now)).tolist())


@pytest.fixture
def frame(tmp_path):
    images = [{name: camera(tmp_path, name, time) for name in NAMES} for time in range(3)]
    return dict(sample_idx=0, token='a', scene_token='s', frame_id='0', timestamp=9.0,
                instances=[], images=images[0],
                image_sweeps=[dict(timestamp=9.0 - n, images=images[n]) for n in (1, 2)])


def load(frame, num_past, *transforms):
    results = copy.deepcopy(frame)
    for transform in (LoadMultiViewImages(num_past=num_past), *transforms):
        results = transform(results)
    return results


def bright(images):
    return [int(image[10].sum(-1).argmax()) - 10 for image in images]


def test_times_follow_each_other_newest_first(frame):
    results = load(frame, 2)
    assert bright(results['img']) == [0, 0, 1, 1, 2, 2]
    assert [c['time'] for c in results['cameras']] == [0, 0, 1, 1, 2, 2]
    assert [c['name'] for c in results['cameras']] == [*NAMES] * 3


def test_the_oldest_time_is_repeated_where_a_scene_starts(frame):
    assert bright(load(frame, 4)['img']) == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]
    frame['image_sweeps'] = []
    assert bright(load(frame, 1)['img']) == [0, 0, 0, 0]
    del frame['image_sweeps']
    with pytest.raises(UserError, match='image_sweeps'):
        load(frame, 1)
    with pytest.raises(UserError, match='num_past: expected >= 0, got -1'):
        LoadMultiViewImages(num_past=-1)


def batch_of(frame, num_past, *transforms):
    packed = PackBEVInputs(keys=('img', ))(load(frame, num_past, *transforms))
    preprocessor = MODELS.build(dict(type='BEVDataPreprocessor'))
    processed = preprocessor(pseudo_collate([packed, copy.deepcopy(packed)]), True)
    assert [sample.pad_shape for sample in processed['data_samples']] == [(40, 64)] * 2
    return processed['inputs']


def test_one_time_is_the_path_without_past_images(frame):
    one, same = batch_of(frame, 0), batch_of(dict(frame, image_sweeps=[]), 0)
    assert one['imgs'].shape == (2, 2, 3, 40, 64) and torch.equal(one['imgs'], same['imgs'])
    assert 'past_rigs' not in one and one['rig'].fingerprint == same['rig'].fingerprint


def test_a_batch_has_a_rig_for_each_time(frame):
    one, inputs = batch_of(frame, 0), batch_of(frame, 2)
    assert inputs['imgs'].shape == (2, 3, 2, 3, 40, 64)
    assert torch.equal(inputs['imgs'][:, 0], one['imgs'])
    assert inputs['rig'].fingerprint == one['rig'].fingerprint
    place = torch.tensor([[8.0, 1.0, 0.5]])  # in the newest LiDAR frame
    for time, rig in enumerate([inputs['rig'], *inputs['past_rigs']]):
        local = place - torch.tensor([[-2.0 * time, 0, 0]])  # the car was 2 m further back
        pixel, depth, valid = rig.project(place)
        torch.testing.assert_close(depth[0, 0], local[:, 0])
        torch.testing.assert_close(pixel[0, 0, 0, 0], 32 - 30 * local[0, 1] / local[0, 0])
        assert valid.all()


def test_augmentation_is_that_of_the_newest_image_and_of_the_scene(frame):
    augment = ImageAug3D((30, 48), (0.7, 0.9))
    results = load(frame, 2, augment, GlobalRotScaleTransFlip())
    for n, view in enumerate(results['cameras']):
        np.testing.assert_array_equal(view['img_aug'], results['cameras'][n % 2]['img_aug'])
    assert not np.array_equal(*(c['img_aug'] for c in results['cameras'][:2]))
    torch.manual_seed(0)
    inputs = batch_of(frame, 2, GlobalRotScaleTransFlip(translation_std=0))
    torch.manual_seed(0)
    bev_aug = load(frame, 0, GlobalRotScaleTransFlip(translation_std=0))['bev_aug']
    plain = batch_of(frame, 2)
    place = np.array([[8.0, 1.0, 0.5]])
    moved = torch.from_numpy(rigid.apply(bev_aug, place)).float()
    for rig, before in zip(inputs['past_rigs'], plain['past_rigs']):
        torch.testing.assert_close(rig.project(moved)[0], before.project(
            torch.from_numpy(place).float())[0], atol=1e-3, rtol=1e-4)


def test_a_change_of_frame_reaches_past_cameras(frame):
    lidar2ego = rigid.rigid(rigid.yaw_matrix(0.3)[:3, :3], (0.9, 0.0, 1.8))
    frame['lidar_points'] = dict(lidar_path='x.bin', num_pts_feats=5, lidar2ego=lidar2ego.tolist())
    before = copy.deepcopy(frame)
    change_frame(frame)
    place = np.array([[8.0, 1.0, 0.5]])
    to_new = rigid.rigid(translation=(0, 0, -1.8)) @ lidar2ego
    for n in range(2):
        old, new = (np.array(f['image_sweeps'][n]['images']['left']['lidar2cam'])
                    for f in (before, frame))
        np.testing.assert_allclose(rigid.apply(new @ to_new, place), rigid.apply(old, place))


def test_the_schema_checks_past_images(frame):
    infos = dict(metainfo=dict(dataset='x', version='1', info_version='1.1', categories=dict(a=0)),
                 data_list=[frame])
    validate_infos(infos)
    frame['image_sweeps'][1]['images']['left']['lidar2cam'][0][0] = float('nan')
    with pytest.raises(UserError, match=r'image_sweeps\[1\].images.left.lidar2cam: expected'):
        validate_infos(infos)
    del frame['image_sweeps'][1]['timestamp']
    with pytest.raises(UserError, match=r'image_sweeps\[1\].timestamp: expected a finite float'):
        validate_infos(infos)


def test_paths_of_past_images_are_joined(frame):
    reader = NuScenesBEVDataset('none.pkl', data_root='/data', lazy_init=True, test_mode=True,
                                load_eval_anns=False)
    for images in (frame['images'], *(s['images'] for s in frame['image_sweeps'])):
        for view in images.values():
            view['img_path'] = 'a/b.png'
    info = reader.parse_data_info(frame)
    assert {view['img_path'] for sweep in info['image_sweeps']
            for view in sweep['images'].values()} == {'/data/a/b.png'}


def test_a_branch_of_one_time_refuses_several(frame):
    model = build(CAMERA).eval()
    with pytest.raises(UserError, match='has 3: set LoadMultiViewImages.num_past to 0'):
        model(batch_of(frame, 2))


# Which past images ----------------------------------------------------------------------------


def shots(tmp_path, ages, key=()):
    """A frame at 9 s with past images of some ages; the bright pixel tells their number."""
    images = [{name: camera(tmp_path, name, n) for name in NAMES} for n in range(len(ages) + 1)]
    sweeps = [dict(timestamp=9.0 - age, images=images[n + 1], is_key=n in key)
              for n, age in enumerate(ages)]
    return dict(sample_idx=0, token='a', scene_token='s', frame_id='0', timestamp=9.0,
                instances=[], images=images[0], image_sweeps=sweeps)


AGES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def chosen(frame, **kwargs):
    results = LoadMultiViewImages(**kwargs)(copy.deepcopy(frame))
    return bright(results['img'])[2::2], results['past_interval']


def test_past_images_of_a_time(tmp_path):
    frame = shots(tmp_path, AGES)
    assert chosen(frame, num_past=1, seconds=[1.1]) == ([4], 1.0)
    assert chosen(frame, num_past=2, seconds=[0.5, 1.5]) == ([2, 6], 0.5)
    assert chosen(frame, num_past=1, seconds=[9]) == ([6], 1.5)
    with pytest.raises(UserError, match=r'seconds: expected 2, one for each past time, got \[1\]'):
        LoadMultiViewImages(num_past=2, seconds=[1])


def test_past_images_are_drawn_evenly_within_a_range(tmp_path):
    torch.manual_seed(0)
    frame = shots(tmp_path, AGES)
    draws = [chosen(frame, num_past=1, seconds=[(0.75, 1.25)])[0][0] for _ in range(60)]
    assert set(draws) == {3, 4, 5} and min(map(draws.count, (3, 4, 5))) > 10
    assert chosen(frame, num_past=1, seconds=[(2, 3)]) == ([6], 1.5)


def test_key_frames_alone(tmp_path):
    frame = shots(tmp_path, AGES, key=(1, 4))
    assert chosen(frame, num_past=2, key_frames=True) == ([2, 5], 0.5)
    assert chosen(frame, num_past=3, key_frames=True) == ([2, 5, 5], 0.5)
    assert chosen(shots(tmp_path, ()), num_past=1, key_frames=True) == ([0], 1 / 12)
    for sweep in frame['image_sweeps']:
        del sweep['is_key']
    with pytest.raises(UserError, match="key_frames: no entry of image_sweeps has 'is_key'"):
        chosen(frame, num_past=2, key_frames=True)


def test_a_frame_without_past_repeats_itself(tmp_path):
    assert chosen(shots(tmp_path, ()), num_past=1, seconds=[1.5]) == ([0], 1 / 12)


def test_a_missing_file_is_replaced_by_the_nearest_in_time_and_counted(tmp_path, caplog):
    frame = shots(tmp_path, AGES)
    (tmp_path / 'right3.png').unlink()
    (tmp_path / 'left4.png').unlink()
    load = LoadMultiViewImages(num_past=2, seconds=[0.75, 1.0])
    results = load(copy.deepcopy(frame))
    assert bright(results['img'])[2::2] == [2, 5] and results['past_interval'] == 0.5
    load(copy.deepcopy(frame))
    assert len(load._missing) == 2
    for n in range(1, 7):
        (tmp_path / f'left{n}.png').unlink(missing_ok=True)
    assert bright(load(copy.deepcopy(frame))['img']) == [0] * 6
    only_right = LoadMultiViewImages(cameras=['right'], num_past=1)
    assert bright(only_right(copy.deepcopy(frame))['img']) == [0, 1]


def test_the_interval_reaches_the_sample(tmp_path):
    frame = shots(tmp_path, AGES)
    packed = PackBEVInputs(keys=('img', ))(LoadMultiViewImages(num_past=1)(frame))
    assert packed['data_samples'].metainfo['past_interval'] == 0.25
