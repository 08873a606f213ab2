"""The quickstart's words and frames."""
import pickle

from mmdet3d_plugin.experiments.quickstart import choose_frames
from mmdet3d_plugin.experiments.quickstart_report import MODELS, verdict


def test_verdict():
    def text(*iou):
        return verdict({name: {100: value} for name, value in zip(MODELS, iou)})

    assert text(50, 30, 35).endswith(
        'distillation adds 5.0 points, 25 % of the way to the teacher.')
    assert text(20, 30, 35).endswith('although the teacher is no better than the student.')
    assert text(50, 30, 28).endswith('distillation did not help in this run (-2.0 points).')


def test_images_show_the_fullest_frame_of_spaced_sequences(tmp_path):
    vehicles = [('s0', 1), ('s0', 3), ('s0', 3), ('s1', 0), ('s2', 2), ('s2', 5), ('s3', 1)]
    data = [dict(scene_token=scene, instances=[dict(bbox_label_3d=0)] * n
                 + [dict(bbox_label_3d=3)] * 9) for scene, n in vehicles]
    infos = dict(metainfo=dict(categories=dict(car=0, bus=1, truck=2, pedestrian=3)),
                 data_list=data)
    (tmp_path / 'dur360bev_infos_val.pkl').write_bytes(pickle.dumps(infos))
    assert choose_frames(tmp_path, 4) == [1, 3, 5, 6]
    assert choose_frames(tmp_path, 2) == [1, 5]
    assert choose_frames(tmp_path, 9) == [1, 3, 5, 6]
