"""Models from Python: the student, alone and out of its distillation."""
import pickle

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from mmdet3d_plugin.apis import BEVInferencer, init_model
from mmdet3d_plugin.checkpoints import save_checkpoint
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.errors import UserError

STUDENT = 'configs/kd360/kd360_student_r18_500it_toytown.py'
TEACHER = 'configs/kd360/kd360_teacher_r18_500it_toytown.py'
DISTILL = 'configs/kd360/kd360_distill_r18_500it_toytown.py'


def config_on(root, path):
    return load_config(path, {'test_dataloader.dataset.data_root': str(root)})


@pytest.fixture(scope='module')
def distilled(tmp_path_factory):
    """A checkpoint as the Runner writes it for a distiller, of random weights."""
    cfg = load_config(DISTILL)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp('checkpoint') / 'iter_1.pth'
    save_checkpoint(dict(state_dict=model.state_dict(), optimizer={}, message_hub={},
                         meta=dict(cfg=cfg.pretty_text, iter=1)), path)
    return path


def test_the_ways_to_name_a_frame_agree(distilled, toytown):
    predict = BEVInferencer(config_on(toytown, STUDENT), distilled, device='cpu')
    sample = predict(1)
    assert sample.pred_bev.seg.shape == (1, 100, 100)
    assert 0 <= sample.pred_bev.seg.min() < sample.pred_bev.seg.max() <= 1
    with open(toytown / 'dur360bev_infos_val.pkl', 'rb') as file:
        info = pickle.load(file)['data_list'][1]
    camera = info['images']['CAM_PANO']
    files = dict(img=toytown / camera['img_path'], lidar2cam=camera['lidar2cam'])
    others = predict([info, files])
    for other in others:
        torch.testing.assert_close(other.pred_bev.seg, sample.pred_bev.seg, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(predict(0).pred_bev.seg, sample.pred_bev.seg)


def test_the_teacher_reads_scans_by_path(toytown, tmp_path):
    cfg = config_on(toytown, TEACHER)
    save_checkpoint(init_model(cfg).state_dict(), tmp_path / 'teacher.pth')
    predict = BEVInferencer(cfg, tmp_path / 'teacher.pth', device='cpu')
    sample = predict(0)
    files = dict(img=sample.img_path, points=sample.lidar_path,
                 lidar2cam=sample.cameras[0]['lidar2cam'])
    torch.testing.assert_close(predict(files).pred_bev.seg, sample.pred_bev.seg,
                               rtol=1e-5, atol=1e-6)


def test_published_student_fits_its_own_config_strictly(distilled, tmp_path, run_command):
    done = run_command('tools/publish_model.py', distilled, tmp_path / 'student.pth')
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob('student-*.pth')
    published = torch.load(path, weights_only=True)
    whole = torch.load(distilled, weights_only=True)['state_dict']
    for cfg in (load_config(STUDENT), Config.fromstring(published['meta']['cfg'], '.py')):
        model = init_model(cfg, device='cpu')
        assert type(model).__name__ == 'BEVModel'
        model.load_state_dict(published['state_dict'], strict=True)
        assert all(torch.equal(value, whole[f'student.{key}'])
                   for key, value in model.state_dict().items())
    assert not any(key.startswith(('student.', 'assistant.', 'teacher.', 'terms.'))
                   for key in published['state_dict'])


def test_errors(distilled, toytown, tmp_path):
    with pytest.raises(UserError, match=r'not of this model \(BEVModel\)'):
        init_model(TEACHER, distilled)
    predict = BEVInferencer(config_on(toytown, STUDENT), distilled, device='cpu')
    with pytest.raises(UserError, match='frame 4: the test data has frames 0 to 3'):
        predict(4)
    with pytest.raises(UserError, match='missing or unreadable image'):
        predict(dict(img=tmp_path / 'gone.png'))
    with pytest.raises(UserError, match="'lidar2cm' is none; did you mean 'lidar2cam'"):
        predict(dict(img='x.png', lidar2cm=1))
