"""How fast a full-size frame is loaded, against each step done plainly."""
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from data_converter import dur360bev
from mmdet3d_plugin.benchmark.data_loading import one_thread, time_input
from mmdet3d_plugin.geometry import lidar_image, panorama
from tests.helpers.dur360bev import make_root

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/kd360/kd360_teacher_r101-effb0_12k_dur360bev.py'


class Plain:
    """The release's steps with NumPy and OpenCV, its maps made once.

    Turn the squares upright, remap with float maps and cubic interpolation, scale to floats; four
    channels of the LiDAR image with percentiles and medians; each box drawn on whole maps.
    """

    def __init__(self):
        self.maps = [a.astype(np.float32) for a in panorama.release_indices(1024, 2048, 640)]
        self.rows, self.cols = np.mgrid[:200, :200]

    def image(self, path):
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        left, right = image[:, :640], image[:, 640:]
        upright = np.concatenate([np.rot90(left, -1), np.rot90(right)], 1)
        out = cv2.remap(upright, *self.maps, cv2.INTER_CUBIC)
        return torch.from_numpy(out).permute(2, 0, 1).contiguous().float().div(255)

    def lidar_image(self, path, shift):
        scan = np.fromfile(path, np.float32).reshape(128, 2048, 9)
        scan = np.stack([np.roll(row, s, 0) for row, s in zip(scan, shift)])
        channels = [scan[..., 8] / 1000]
        channels[0] = channels[0] / channels[0].max()
        for index, root in ((7, True), (3, True), (5, False)):
            channel = scan[..., index]
            if index == 7:
                dark = lidar_image.beam_offsets(channel)
                channel = np.clip(channel - dark[:, None].astype(np.float32), 0, None)
            sample = channel.reshape(-1)[::4]
            low, high = np.percentile(sample[sample != 0], [10, 90])
            channel = np.clip((channel - low) * (0.8 / (high - low)), 0, 1)
            channels.append(np.sqrt(channel) if root else channel)
        return torch.stack([torch.from_numpy(cv2.resize(c.astype(np.float32), (2048, 242)))
                            for c in channels]), torch.from_numpy(scan.reshape(-1, 9))

    def targets(self, boxes):
        seg, offset = np.zeros((200, 200)), np.zeros((2, 200, 200), np.float32)
        centerness = np.zeros((200, 200), np.float32)
        for number, box in enumerate(boxes, 1):
            centre = 100 - 2 * box[[0, 1]]
            cos, sin = np.cos(box[6]), np.sin(box[6])
            corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * box[3:5]
            turned = corners @ np.array([[-cos, -sin], [sin, -cos]])
            polygon = (centre + turned)[:, ::-1].astype(np.int32)
            cv2.fillPoly(seg, [polygon], number)
            rows, cols = centre[0] - self.rows, centre[1] - self.cols
            offset += np.stack([rows, cols]) * (seg == number)
            centerness = np.maximum(centerness, np.exp(-(rows ** 2 + cols ** 2) / 18))
        return [torch.from_numpy(a) for a in ((seg > 0).astype(np.float32), centerness, offset)]

    def __call__(self, frame):
        boxes = frame['ann_info']['gt_bboxes_3d'].tensor.numpy()
        shift = frame['lidar_image']['pixel_shift_by_row']
        return (self.image(frame['img_path']), self.lidar_image(frame['lidar_path'], shift),
                self.targets(boxes))


def cpu_ms(load, turns=9):
    """Least processor time of some turns."""
    seconds = []
    for _ in range(turns):
        start = time.process_time()
        load()
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """Three full-size frames, like photos as far as a PNG decoder is concerned; 30 boxes each."""
    init_default_scope('mmdet3d')
    root = make_root(tmp_path_factory.mktemp('full') / 'data', frames=3, image=(640, 1280),
                     scan=(128, 2048))
    rng = np.random.default_rng(0)
    for path in (root / 'image' / 'data').iterdir():
        smooth = cv2.resize(rng.integers(0, 230, (40, 80, 3), np.uint8), (1280, 640))
        noise = rng.integers(0, 12, smooth.shape, np.uint8)
        cv2.imwrite(str(path), smooth + noise)
    for path in (root / 'labels' / 'data').iterdir():
        path.write_text(''.join(f'Car 1.5 1.8 4.5 {x} {y} -1 {yaw}\n' for x, y, yaw in zip(
            *rng.uniform(-50, 50, (2, 30)), rng.uniform(-3, 3, 30))))
    dur360bev.convert(str(root))
    cfg = Config.fromfile(CONFIG).train_dataloader.dataset
    return DATASETS.build(dict(cfg, data_root=str(root)))


def test_after_decoding_the_input_takes_little_more_than_the_remapping(dataset):
    """Nothing is copied that need not be, from the file to the network's input."""
    preprocess = MODELS.build(Config.fromfile(CONFIG).model.data_preprocessor)
    frame = dataset.get_data_info(0)
    image, maps = cv2.imread(frame['img_path']), panorama.dual_fisheye_maps(1024, 2048, 640)
    with one_thread():
        spent = list(time_input(dataset, preprocess, range(9)))
        remapping = cpu_ms(lambda: panorama.remap(image, maps))
    least = {part: 1000 * min(turn[part] for turn in spent) for part in spent[0]}
    print({part: round(ms, 1) for part, ms in least.items()}, f'remapping {remapping:.1f}')
    assert least['all'] - least['decoding'] < 2.5 * remapping


def test_a_full_frame_takes_less_than_two_thirds_of_the_plain_steps(dataset):
    with one_thread():
        plain, frame = Plain(), dataset.get_data_info(0)
        ours = cpu_ms(lambda: dataset[0])
        theirs = cpu_ms(lambda: plain(frame))
        decode = cpu_ms(lambda: cv2.imread(frame['img_path']))
    print(f'{ours:.1f} ms, plain {theirs:.1f} ms, decoding the PNG alone {decode:.1f} ms')
    assert dataset[0]['inputs']['img'].shape == (1, 3, 1024, 2048)
    assert ours < theirs * 2 / 3
    assert ours < 5 * decode
