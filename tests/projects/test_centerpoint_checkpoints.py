"""CenterPoint of mmdetection3d: every entry, both ways, and the whole networks."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.models.heads.box_decoding import TaskDecoding, decode_boxes
from tests.helpers import centerpoint_release as zoo
from tests.projects.test_bevdepth_checkpoints import converter, no_draws, same  # noqa: F401

FULL = {
    'centerpoint-pillar': (zoo.Sizes(), 414),
    'centerpoint-dcn': (zoo.Sizes(deform=True), 450),
    'centerpoint-voxel': (zoo.VOXEL, 504),
    'centerpoint-voxel-dcn': (replace(zoo.VOXEL, deform=True), 540),
    'centerpoint-pillar-0.17': (zoo.Sizes('dynamic'), 414),
    'mvp-pillar-0.17': (zoo.Sizes('dynamic', values=17), 414)}
SMALL = dict(reach=6.4, pillar=8, layers=(1, 1, 1), widths=(8, 12, 16), neck=8, head=8)


@pytest.mark.usefixtures('no_draws')
@pytest.mark.parametrize('model', FULL)
def test_every_entry_is_accounted_for_and_comes_back(model):
    z, entries = FULL[model]
    file = zoo.file(z)
    assert len(file) == entries
    ours, report = converter.convert(dict(meta={}, state_dict=file), model)
    assert len(ours['state_dict']) == entries
    assert f'{entries} entries, {entries} converted' in report
    assert ('kind_column=15' in report) == ('mvp' in model)
    assert same(converter.revert(ours, model)[0]['state_dict'], file)


@pytest.mark.usefixtures('no_draws')
def test_another_file_is_refused():
    with pytest.raises(UserError, match='entries missing'):
        converter.convert(zoo.file(zoo.Sizes('dynamic')), 'centerpoint-pillar')
    with pytest.raises(UserError, match=r'0.0.weight is \(64, 10\), expected \(64, 22\)'):
        converter.convert(zoo.file(zoo.Sizes('dynamic')), 'mvp-pillar-0.17')
    file = zoo.file(zoo.Sizes('dynamic'))
    file['pts_voxel_encoder.pfn_layers.0.0.weight'] = torch.zeros(64, 11)
    with pytest.raises(UserError, match=r'is \(64, 11\), expected \(64, 10\)'):
        converter.convert(file, 'centerpoint-pillar-0.17')


@pytest.mark.usefixtures('no_draws')
def test_kernels_of_both_versions_of_spconv():
    first = zoo.release(zoo.VOXEL)
    second = {name: value.movedim(-1, 0).contiguous() if value.dim() == 5 else value
              for name, value in first.items()}
    converted = [converter.convert(file, 'centerpoint-voxel')[0] for file in (first, second)]
    assert same(converted[0]['state_dict'], converted[1]['state_dict'])
    for file, ours in zip((first, second), converted):
        assert same(converter.revert(ours, 'centerpoint-voxel')[0]['state_dict'], file)
    kernel = converted[0]['state_dict']['lidar_branch.encoder.stem.conv.weight']
    assert torch.equal(kernel[0, 1, 2], first['pts_middle_encoder.conv_input.0.weight'][2, 0, 1])


# The whole networks -------------------------------------------------------------------------------

def small(model, z):
    """Ours with the settings of the release's config, and the converter's view of it."""
    release = converter.release_of(model, {})
    net, square = release.config.model, dict(x_range=(-z.reach, z.reach),
                                             y_range=(-z.reach, z.reach))
    net.grid.update(square)
    net.lidar_branch.point_range = (-z.reach, -z.reach, -5, z.reach, z.reach, 3)
    if z.kind != 'voxel':
        net.lidar_branch.channels = z.pillar
        net.bev_encoder.backbone.in_channels = z.pillar
    net.bev_encoder.backbone.update(out_channels=z.widths, layer_nums=z.layers)
    net.bev_encoder.neck.update(in_channels=z.widths, out_channels=(z.neck, ) * len(z.widths))
    net.head.update(in_channels=z.neck * len(z.widths), shared_channels=z.head)
    if z.deform:
        net.head.separate_head.dcn_config.update(in_channels=z.head, out_channels=z.head)
    return release


def loaded(model, z, seed=3):
    state, release = zoo.release(z, seed), small(model, z)
    built = converter.build(release).eval()
    built.load_state_dict(converter.convert_state(state, release, built)[0])
    return built, zoo.Release(state, z)


def cloud(z, seed=6):
    torch.manual_seed(seed)
    points = torch.randn(800, z.values) * torch.tensor([3.0, 3, 1.2, *[0.5] * (z.values - 3)])
    near = points[:40].repeat(30, 1)  # more than the points that count
    points = torch.cat([points, near + 0.02 * torch.randn_like(near)])
    if z.values == 17:  # painted and virtual points
        points[:, 15] = torch.randint(-1, 2, (len(points), )).float()
    return points


@pytest.mark.parametrize('model, z', [
    ('centerpoint-pillar', zoo.Sizes(**SMALL)),
    ('centerpoint-dcn', zoo.Sizes(deform=True, **SMALL)),
    ('centerpoint-voxel', replace(zoo.VOXEL, reach=3.2, layers=(1, 1), widths=(8, 12), neck=8,
                                  head=8)),
    ('centerpoint-pillar-0.17', zoo.Sizes('dynamic', **SMALL)),
    ('mvp-pillar-0.17', zoo.Sizes('dynamic', values=17, **SMALL))])
def test_whole_networks_compute_what_the_release_computes(model, z):
    ours, theirs = loaded(model, z)
    points = cloud(z)
    read = points.clone()
    if z.values == 17:  # what the pillar net of the release reads
        read[:, 15] = (points[:, 15] == -1).float()
    with torch.no_grad():
        expected, got = theirs(read), ours(dict(points=[points]))
    assert got.keys() == expected.keys()
    old = z.kind == 'dynamic'
    for name, value in expected.items():
        if old and name.endswith('.dim'):
            value = value[:, [1, 0, 2]]
        elif old and name.endswith('.rot'):
            value = -value[:, [1, 0]]
        assert value.std() > 0.02 and (got[name] - value).norm() / value.norm() < 1e-4, name


def test_boxes_of_version_0_are_those_of_today():
    """Decoded as then and changed analytically, they are what the converted model predicts."""
    z = zoo.Sizes('dynamic', **SMALL)
    ours, theirs = loaded('centerpoint-pillar-0.17', z)
    points = cloud(z)
    with torch.no_grad():
        expected, got = theirs(points), ours(dict(points=[points]))
    for task, count in enumerate(zoo.CLASSES):
        boxes, scores, kinds = zoo.decode_of_old(expected, task, z, 0.8, 60)
        decoding = TaskDecoding(tuple('abcde'[:count]), max_num=60, score_threshold=0.0,
                                nms_type=None, pre_max_size=None, post_max_size=None)
        found, = decode_boxes({name.split('.')[1]: value for name, value in got.items()
                               if name.startswith(f'task{task}.')}, ours.grid, decoding)
        new = zoo.old_to_new(boxes)
        new[:, 6] = (new[:, 6] + np.pi) % (2 * np.pi) - np.pi
        assert abs(new[:, 3] - new[:, 4]).max() > 0.1  # length and width differ
        np.testing.assert_allclose(found.scores, scores, atol=1e-5)
        assert found.classes.tolist() == kinds.tolist()
        turn = np.angle(np.exp(1j * (found.boxes[:, 6].numpy() - new[:, 6])))
        np.testing.assert_allclose(turn, 0, atol=1e-4)
        np.testing.assert_allclose(np.delete(found.boxes, 6, 1), np.delete(new, 6, 1), atol=1e-5,
                                   rtol=1e-5)


def test_pillars_trained_here_become_those_of_0_17():
    """Their weights of the height above the centre are not 0: they are folded, not dropped."""
    model, z = 'centerpoint-pillar-0.17', zoo.Sizes('dynamic', **SMALL)
    ours, _ = loaded(model, z)
    torch.manual_seed(1)
    ours.lidar_branch.linear.weight.data[:, -1] = torch.randn(z.pillar)
    release = small(model, z)
    state = converter.revert_state(ours.state_dict(), {}, release, ours)
    points = cloud(z)
    with torch.no_grad():
        expected = zoo.Release(state, z).pillars(points)
        got = ours.lidar_branch(dict(points=[points]))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert got.std() > 0.05
