import copy

import pytest
import torch
from mmdet3d.models import Det3DDataPreprocessor
from mmdet3d.registry import MODELS
from torch import nn

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import BEVGrid, CameraRig
from mmdet3d_plugin.models.flips import Flips
from tests.factories import CAMERA, GRID, LIDAR, batch, build


@pytest.mark.parametrize('camera_branch, lidar_branch', [(CAMERA, None), (None, LIDAR),
                                                          (CAMERA, LIDAR)])
def test_three_honest_modes(camera_branch, lidar_branch):
    model = build(camera_branch, lidar_branch)
    data = model.data_preprocessor(batch(), True)
    losses = model(**data, mode='loss')
    assert set(losses) == {'loss_segmentation', 'loss_centerness', 'loss_offset'}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    raw = model(data['inputs'])
    assert {k: tuple(v.shape) for k, v in raw.items()} == dict(
        segmentation=(2, 1, 32, 32), centerness=(2, 1, 32, 32), offset=(2, 2, 32, 32))
    predicted = model(**data, mode='predict')
    torch.testing.assert_close(predicted[1].pred_bev.seg, raw['segmentation'][1].sigmoid())


def test_a_camera_student_needs_no_lidar_input():
    data = batch(lidar=False)
    model = build().eval()
    assert model.test_step(data)[0].pred_bev.seg.shape == (1, 32, 32)


def test_missing_lidar_input_says_what_to_load():
    model = build(None, LIDAR).eval()
    with pytest.raises(UserError, match="'lidar_img'.*PackBEVInputs"):
        model.test_step(batch(lidar=False))


def test_wrong_grid_between_data_and_model():
    data = batch()
    data['data_samples'][1].set_metainfo(dict(bev_grid=dict(BEVGrid(**GRID).asdict(), rows='+x')))
    model = build()
    with pytest.raises(UserError, match='RasterizeBEV.grid and model.grid'):
        model(**model.data_preprocessor(data, True), mode='loss')


def test_preprocessor_normalises_and_builds_rigs():
    model = build()
    raw = batch()
    expected = (raw['inputs']['img'][1][0, 2].float() / 255 - 0.3148) / 0.3749
    lidar = (raw['inputs']['lidar_img'][0][1] - 0.3056) / 0.3668
    inputs = model.data_preprocessor(raw, True)['inputs']
    torch.testing.assert_close(inputs['imgs'][1, 0, 2], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inputs['lidar_img'][0, 1], lidar)
    assert isinstance(inputs['rig'], CameraRig) and inputs['lidar_rig'].size == (16, 64)


@pytest.mark.parametrize('settings', [{}, dict(bgr_to_rgb=True)])
def test_preprocessor_equals_mmdet3ds_bit_for_bit(settings):
    preprocessor, raw = build(data_preprocessor=dict(
        type='BEVDataPreprocessor', **settings)).data_preprocessor, batch(3)
    raw['inputs']['img'] = [image.repeat(2, 1, 1, 1) + n for n, image in enumerate(
        raw['inputs']['img'])]
    before = copy.deepcopy(raw['inputs']['img'])
    theirs = Det3DDataPreprocessor.collate_data(preprocessor, raw)['inputs']['imgs']
    ours = preprocessor(raw)['inputs']['imgs']
    assert ours.shape == (3, 2, 3, 64, 128) and torch.equal(ours, theirs)
    assert all(map(torch.equal, raw['inputs']['img'], before))


def test_float_images_are_not_normalised_in_place():
    preprocessor, raw = build().data_preprocessor, batch(1)
    raw['inputs']['img'] = [image.float() for image in raw['inputs']['img']]
    first = preprocessor(raw)['inputs']['imgs']
    assert torch.equal(preprocessor(raw)['inputs']['imgs'], first)
    lidar = preprocessor(raw)['inputs']['lidar_img']
    assert torch.equal(preprocessor(raw)['inputs']['lidar_img'], lidar)


def test_padding_is_left_to_mmdet3d():
    preprocessor = build(data_preprocessor=dict(
        type='BEVDataPreprocessor', pad_size_divisor=48)).data_preprocessor
    assert preprocessor(batch(2))['inputs']['imgs'].shape == (2, 1, 3, 96, 144)


def test_wrong_number_of_lidar_channels():
    model = build(data_preprocessor=dict(type='BEVDataPreprocessor', lidar_mean=(0.5,),
                                         lidar_std=(0.2,)))
    with pytest.raises(UserError, match='3 channels, but lidar_mean has 1'):
        model.data_preprocessor(batch(), True)


def test_geometry_is_computed_once_per_rig(monkeypatch):
    from mmdet3d_plugin.models.view_transforms import voxel_pulling
    calls = []
    original = voxel_pulling.build_pull_map
    monkeypatch.setattr(voxel_pulling, 'build_pull_map',
                        lambda *a, **k: calls.append(1) or original(*a, **k))
    model = build().eval()
    for size in (2, 1, 3):
        model.test_step(batch(size))
    assert len(calls) == 1
    assert not any('pull_map' in key for key in model.state_dict())


def test_model_needs_a_fuser_exactly_for_two_branches():
    with pytest.raises(UserError, match='model.fuser'):
        build(CAMERA, LIDAR, fuser=None)
    with pytest.raises(UserError, match='camera_branch, lidar_branch or both'):
        build(None, None)


def test_misspelt_key_names_its_place_and_a_close_match():
    with pytest.raises(UserError, match=r"model\.head\.num_clases.*num_classes"):
        build(head=dict(type='BEVSegHead', in_channels=8, num_clases=1))


def test_flips_return_to_the_true_frame():
    flips = Flips(*torch.tensor([[False, True], [True, False], [True, True]]))
    bev = torch.arange(2 * 1 * 3 * 4.).reshape(2, 1, 3, 4)
    assert torch.equal(flips.enter_bev(lambda x: x, bev), bev)
    seen = []
    flips.enter_bev(lambda x: seen.append(x) or x, bev)
    assert torch.equal(seen[0][0], bev[0].flip(-1, -2)) and torch.equal(seen[0][1], bev[1].flip(-1))
    assert torch.equal(flips.run_on_image(lambda x: x * 2, bev), bev * 2)


def test_flipping_a_network_equals_flipping_its_kernels():
    conv = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    bev = torch.randn(1, 1, 5, 6)
    flips = Flips(*torch.tensor([[False], [True], [False]]))
    mirrored = copy.deepcopy(conv)
    mirrored.weight.data = conv.weight.data.flip(-2)
    torch.testing.assert_close(flips.enter_bev(conv, bev), mirrored(bev))


def test_late_undoing_leaves_the_taps_flipped_and_the_output_true():
    early = Flips(*torch.tensor([[False], [True], [True]]))
    late = early._replace(undo_late=True)
    torch.manual_seed(0)
    first, second, bev = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), \
        torch.randn(1, 2, 6, 6)

    def decode(x):
        return second(x), second(second(x))

    entered = [flips.enter_bev(first, bev) for flips in (early, late)]
    torch.testing.assert_close(entered[1], entered[0].flip(-1, -2))
    (tap, out), (late_tap, late_out) = (
        flips.leave_bev(decode, x) for flips, x in zip((early, late), entered))
    torch.testing.assert_close(late_out, out)
    torch.testing.assert_close(late_tap, tap.flip(-1, -2))


def with_view(branch, **changes):
    return {**branch, 'view_transform': {**branch['view_transform'], **changes}}


@pytest.mark.parametrize('branch, flips', [
    (CAMERA, None), (LIDAR, None), (CAMERA, dict(image=0.5, rows=0.5, cols=0.5)),
    (CAMERA, dict(rows=1.0, cols=0.5, undo_late=True))])
def test_both_orders_of_pulling_and_compressing_train_alike(branch, flips):
    losses, gradients = [], []
    name = 'camera_branch' if branch is CAMERA else 'lidar_branch'
    for order in ('sample_first', 'conv_first'):
        branches = dict(camera_branch=None, lidar_branch=None)
        branches[name] = with_view(branch, order=order)
        model = build(**branches, flips=flips).train()
        data = model.data_preprocessor(batch(4), True)
        torch.manual_seed(1)
        loss = sum(model(**data, mode='loss').values())
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in getattr(model, name).parameters()])
    torch.testing.assert_close(*losses)
    for sampled, fused in zip(*gradients):
        torch.testing.assert_close(sampled, fused, atol=1e-4, rtol=1e-3)


def test_orders_are_checked():
    with pytest.raises(UserError, match="'sample_first' or 'conv_first', got 'sample_frist'"):
        build(camera_branch=with_view(CAMERA, order='sample_frist'))
    compressor = dict(type='BEVDownsample', channels=32)
    with pytest.raises(UserError, match='needs the compressor HeightCompressor'):
        build(camera_branch=with_view(CAMERA, order='conv_first', compressor=compressor))


def test_late_undoing_refuses_a_lidar_branch():
    with pytest.raises(UserError, match='would join two frames'):
        build(lidar_branch=LIDAR, flips=dict(undo_late=True))


def test_flips_act_in_training_only_and_follow_the_seed():
    model = build(flips=dict(image=0.5, rows=0.5, cols=0.5))
    data = model.data_preprocessor(batch(), True)

    def losses(seed):
        torch.manual_seed(seed)
        return float(model(**data, mode='loss')['loss_segmentation'].detach())

    assert losses(1) == losses(1)
    assert len({losses(seed) for seed in range(6)}) > 1
    model.eval()
    torch.testing.assert_close(model(data['inputs']), model(data['inputs']))


def test_sgfm_equations():
    torch.manual_seed(0)
    sgfm = MODELS.build(dict(type='SGFM', channels=3, bias=True)).eval()
    camera_map, lidar_map = torch.randn(2, 1, 3, 4, 5)
    gate = torch.sigmoid(torch.einsum('oi,nihw->nohw', sgfm.gate.weight[..., 0, 0],
                                      torch.cat([camera_map, lidar_map], 1))
                         + sgfm.gate.bias[:, None, None])
    fused = gate * camera_map + (1 - gate) * lidar_map
    expected = sgfm.refine(torch.cat([fused, fused], 1))
    torch.testing.assert_close(sgfm(camera_map, lidar_map), expected)
    single = MODELS.build(dict(type='SGFM', channels=3, bias=True, doubled=False)).eval()
    state = sgfm.state_dict()
    first, second = state['refine.conv.weight'].chunk(2, 1)
    single.load_state_dict({**state, 'refine.conv.weight': first + second})
    torch.testing.assert_close(single(camera_map, lidar_map), expected, atol=1e-5, rtol=1e-5)


def test_upsample_concat_resizes_odd_maps_twice():
    neck = MODELS.build(dict(type='UpsampleConcat', in_channels=(2, 3), mid_channels=4,
                             out_channels=5))
    assert neck([torch.randn(1, 2, 31, 256), torch.randn(1, 3, 16, 128)]).shape == (1, 5, 31, 256)


def test_unet_taps_and_shapes():
    unet = MODELS.build(dict(type='BEVUNet', in_channels=4, channels=(6, 8, 10)))
    half, quarter, eighth, full = unet(torch.randn(1, 4, 200, 200))
    assert [tuple(x.shape[1:]) for x in (half, quarter, eighth, full)] == [
        (6, 100, 100), (8, 50, 50), (10, 25, 25), (4, 200, 200)]


def test_head_prior_and_deployed_tasks():
    head = MODELS.build(dict(type='BEVSegHead', in_channels=4, tasks=('segmentation',),
                             prior_prob=0.01))
    assert set(head((torch.zeros(1, 4, 8, 8),))) == {'segmentation'}
    logits = head((torch.zeros(1, 4, 8, 8),))['segmentation']
    assert logits.sigmoid().mean().item() == pytest.approx(0.01)
    with pytest.raises(UserError, match="unknown task \\['depth'\\]"):
        MODELS.build(dict(type='BEVSegHead', in_channels=4, tasks=('depth',)))


def _saved_bytes(model, data):
    """Loss, gradients, and bytes that the forward pass keeps for the backward pass."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(3)  # the flips
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sum(model(**data, mode='loss').values())
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()], sum(kept.values())


def test_checkpointing_changes_memory_alone():
    flips = dict(image=0.5, rows=0.5, cols=0.5)
    plain, spared = (build(CAMERA, LIDAR, flips=flips, checkpointing=on).train()
                     for on in (False, True))
    data = plain.data_preprocessor(batch(), True)
    (loss, gradients, size), (same, again, less) = (_saved_bytes(model, data)
                                                    for model in (plain, spared))
    assert torch.equal(loss, same) and less < size / 3
    for one, other in zip(gradients, again):
        torch.testing.assert_close(one, other)
    for name, value in plain.named_buffers():  # statistics are counted once
        torch.testing.assert_close(spared.get_buffer(name), value)


def test_checkpointing_is_for_training_alone(monkeypatch):
    from mmdet3d_plugin.models.detectors import bev_model
    monkeypatch.setattr(bev_model, 'checkpoint', None)  # calling it would fail
    build(checkpointing=True).eval().test_step(batch())
