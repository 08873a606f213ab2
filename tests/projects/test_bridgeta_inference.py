"""What BridgeTA deploys is the plain student: parameters, graph, cost, outputs."""
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from torch.utils.flop_counter import FlopCounterMode

from tests.models.test_bevfusion import full_size_frame

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/bridgeta'


def build(name):
    return MODELS.build(Config.fromfile(CONFIGS / f'bridgeta_{name}.py').model).eval()


def shapes(model):
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.fixture(scope='module', params=[
    ('student_r18_500it_toytown', 'distill_r18_500it_toytown'),
    pytest.param(('student_swint_20e_nuscenes', 'distill_swint_20e_nuscenes'),
                 marks=pytest.mark.slow)])
def pair(request):
    torch.manual_seed(0)
    plain, distiller = map(build, request.param)
    distiller.student.load_state_dict(plain.state_dict())
    frame = full_size_frame()
    del frame['inputs']['points']  # the student reads none
    if 'toytown' in request.param[0]:
        frame['inputs']['img'] = [image[..., :64, :160] for image in frame['inputs']['img']]
    return plain, distiller, frame


def run(model, frame):
    """((floating point operations, modules in the order of their calls), map) of a prediction."""
    calls = []
    handles = [module.register_forward_hook(lambda *_, name=name: calls.append(name))
               for name, module in model.named_modules() if not list(module.children())]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = model.test_step(frame)[0].pred_bev.seg.clone()
    for handle in handles:
        handle.remove()
    return (counter.get_total_flops(), [name.removeprefix('student.') for name in calls]), maps


def test_the_distilled_student_is_the_plain_one(pair):
    plain, distiller, frame = pair
    assert shapes(plain) == shapes(distiller.student)
    assert str(plain) == str(distiller.student)
    assert sum(p.numel() for p in distiller.parameters()) > sum(p.numel() for p in
                                                                plain.parameters())
    (cost, maps), (deployed_cost, deployed_maps) = (run(model, frame) for model in pair[:2])
    assert cost == deployed_cost and cost[0] > 1e6
    assert torch.equal(maps, deployed_maps) and maps.std() > 0
