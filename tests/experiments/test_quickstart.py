"""The quickstart's words and frames."""
from mmdet3d_plugin.experiments.quickstart import choose_frames
from mmdet3d_plugin.experiments.quickstart_report import MODELS, verdict
from mmdet3d_plugin.structures import save_infos


def test_verdict():
    def text(*iou):
        return verdict({name: {100: value} for name, value in zip(MODELS, iou)})

    assert text(50, 30, 35).endswith(
        'distillation adds 5.0 points, 25 % of the way to the teacher.')
    assert text(20, 30, 35).endswith('although the teacher is no better than the student.')
    assert text(50, 30, 28).endswith('distillation did not help in this run (-2.0 points).')


def test_images_show_the_fullest_frame_of_spaced_sequences(tmp_path):
    vehicles = [('s0', 1), ('s0', 3), ('s0', 3), ('s1', 0), ('s2', 2), ('s2', 5), ('s3', 1)]
    box = [0.0, 0, 0, 1, 1, 1, 0]
    data = [dict(sample_idx=index, token=str(index), frame_id=str(index), timestamp=0.0,
                 scene_token=scene, instances=[dict(bbox_3d=box, bbox_label_3d=0)] * n
                 + [dict(bbox_3d=box, bbox_label_3d=3)] * 9)
            for index, (scene, n) in enumerate(vehicles)]
    meta = dict(categories=dict(car=0, bus=1, truck=2, pedestrian=3), dataset='toytown',
                version='1', info_version='1')
    save_infos(dict(metainfo=meta, data_list=data), str(tmp_path / 'dur360bev_infos_val.pkl'))
    assert choose_frames(tmp_path, 4) == [1, 3, 5, 6]
    assert choose_frames(tmp_path, 2) == [1, 5]
    assert choose_frames(tmp_path, 9) == [1, 3, 5, 6]
