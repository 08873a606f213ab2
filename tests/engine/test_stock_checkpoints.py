"""What mmengine's own hooks write for any scheduler and optimiser, our Runner resumes."""
import importlib
import inspect
import pickle
from types import MappingProxyType

import mmdet.engine  # noqa: F401  registers its schedulers
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from mmdet3d_plugin.checkpoints import load_weights, read_checkpoint
from mmdet3d_plugin.engine import PluginRunner
from mmdet3d_plugin.errors import UserError

REQUIRED = dict(step_size=2, milestones=[1, 3], gamma=0.9, eta_max=0.02, total_steps=9,
                periods=[4, 5], restart_weights=[1.0, 0.5], eta_min=0.001)
NO_SINGLE_PROCESS_OPTIMIZER = {'Optimizer', 'ZeroRedundancyOptimizer', 'LBFGS'}


class Model(BaseModel):

    def __init__(self, sparse=False):
        super().__init__()
        self.table = nn.Embedding(4, 3, sparse=sparse)
        self.out = nn.Linear(3, 1, bias=False).requires_grad_(not sparse)

    def forward(self, inputs, mode='tensor'):
        out = self.out(self.table(torch.stack(list(inputs))))
        return dict(loss=(out - 1).square().mean()) if mode == 'loss' else list(out)


class Data(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', ), palette=ConfigDict(a=[1, 2]), sizes=np.array([2, 3]),
                    names=np.array(['x', 'yz']), version=np.str_('v1'))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.tensor(index))


class Score(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(score=np.float64(0.25), half=np.float16(0.5), flag=np.bool_(True),
                    per_class=np.array([0.5, 2.0], dtype=np.float32))


def run(folder, schedulers=(), steps=2, resume=None, hook='CheckpointHook',
        optimizer=MappingProxyType(dict(type='SGD', lr=0.1)), saving=None, custom_hooks=None):
    loader = dict(dataset=Data(), batch_size=2, num_workers=0)
    runner = PluginRunner(
        Model(sparse=optimizer['type'] == 'SparseAdam'), str(folder), default_scope='mmdet3d',
        experiment_name=f'{folder.name}-{resume}', log_level='ERROR',
        train_dataloader=dict(loader, sampler=dict(type='InfiniteSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=steps, val_interval=1),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(), val_evaluator=Evaluator([Score()]),
        optim_wrapper=dict(optimizer=dict(optimizer)),
        param_scheduler=list(schedulers) or None,
        default_hooks=dict(checkpoint=dict(type=hook, by_epoch=False, interval=1,
                                           **saving or {})),
        custom_hooks=custom_hooks, resume=resume is not None, load_from=resume)
    runner.train()
    return runner


def scheduler_configs():
    for registry in (PARAM_SCHEDULERS, *PARAM_SCHEDULERS.children.values()):
        for name, cls in sorted(registry.module_dict.items()):
            parameters = {}
            for parent in reversed(cls.__mro__):
                if '__init__' in vars(parent):
                    parameters |= inspect.signature(parent.__init__).parameters
            config = dict(type=f'{registry.scope}.{name}', by_epoch='Plateau' in name)
            if name.endswith('ParamScheduler'):
                config['param_name'] = 'lr' if 'OneCycle' in name else 'weight_decay'
            for key, parameter in parameters.items():
                if key in REQUIRED and parameter.default in (parameter.empty, None, (1, )):
                    config[key] = REQUIRED[key]
            if 'monitor' in parameters:
                config['monitor'] = 'toy/score'
            yield dict(config, end=9) if 'end' in parameters else config


def test_every_registered_scheduler(tmp_path):
    configs = list(scheduler_configs())
    assert len(configs) == sum(len(registry.module_dict) for registry in
                               (PARAM_SCHEDULERS, *PARAM_SCHEDULERS.children.values())) >= 32
    sgd = dict(type='SGD', lr=0.1, momentum=0.5, weight_decay=0.1)
    run(tmp_path, configs, optimizer=sgd)
    path = tmp_path / 'iter_2.pth'
    states = torch.load(path, weights_only=False)['param_schedulers']
    names = [config['type'] for config in configs]
    assert inspect.isroutine(states[names.index('mmengine.OneCycleLR')]['anneal_func'])
    pickle.loads(pickle.dumps(read_checkpoint(path)))
    resumed = run(tmp_path, configs, optimizer=sgd, resume=str(path))
    for name, state, scheduler in zip(names, states, resumed.param_schedulers):
        resumed_state = scheduler.state_dict()
        if 'Plateau' in name:  # counts the end of the epoch, which follows at once
            resumed_state['_global_step'] -= 1
        assert resumed_state == state, name
    further = run(tmp_path, configs, optimizer=sgd, resume=str(path), steps=4)
    whole = run(tmp_path / 'whole', configs, optimizer=sgd, steps=4)
    lr, expected = (one.optim_wrapper.param_groups[0]['lr'] for one in (further, whole))
    assert lr == expected


@pytest.mark.parametrize('name', sorted(set(OPTIMIZERS.module_dict)
                                        - NO_SINGLE_PROCESS_OPTIMIZER))
def test_every_registered_optimizer(name, tmp_path):
    written = run(tmp_path, optimizer=dict(type=name, lr=0.1))
    resumed = run(tmp_path, optimizer=dict(type=name, lr=0.1),
                  resume=str(tmp_path / 'iter_2.pth'))
    old, new = (runner.optim_wrapper.state_dict()['state'] for runner in (written, resumed))
    assert old.keys() == new.keys() and len(old) == dict(SGD=0, SparseAdam=1).get(name, 2)
    for one, other in zip(old.values(), new.values()):
        for key, value in one.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), key


def test_hooks_and_what_they_put_into_the_message_hub(tmp_path):
    hooks = [dict(type='EMAHook'), dict(type='mmdet.CheckInvalidLossHook', interval=1),
             dict(type='EarlyStoppingHook', monitor='toy/score', rule='greater')]
    run(tmp_path, custom_hooks=hooks,
        saving=dict(save_best='toy/score', rule='greater', max_keep_ckpts=1))
    content = read_checkpoint(tmp_path / 'iter_2.pth')
    assert set(content['ema_state_dict']) >= {'steps', 'module.out.weight'}
    info = content['message_hub']['runtime_info']
    assert info['best_score'] == 0.25 and info['dataset_meta']['palette'] == dict(a=[1, 2])
    assert type(info['dataset_meta']['palette']) is dict
    assert info['dataset_meta']['sizes'].tolist() == [2, 3]
    assert info['dataset_meta']['names'].tolist() == ['x', 'yz']
    assert info['dataset_meta']['version'] == 'v1'
    assert info['val/toy/per_class'].tolist() == [0.5, 2.0]
    scalars = content['message_hub']['log_scalars']
    assert scalars['val/toy/half'].data[0].tolist() == [0.5]
    assert len(scalars['train/loss'].data[0]) == 2
    [best] = tmp_path.glob('best_toy_score_iter_*.pth')
    load_weights(Model(), best)
    MessageHub.get_instance('read_back').load_state_dict(content['message_hub'])
    resumed = run(tmp_path, custom_hooks=hooks, resume=str(tmp_path / 'iter_2.pth'), steps=3)
    assert len(resumed.message_hub.log_scalars['train/loss'].data[0]) == 3


def test_either_hook_resumes_what_the_other_wrote(tmp_path):
    one_cycle = [dict(type='OneCycleLR', eta_max=0.2, total_steps=9, end=9, by_epoch=False)]
    whole = run(tmp_path / 'whole', one_cycle, steps=4)
    for first, second in (('CheckpointHook', 'SafeCheckpointHook'),
                          ('SafeCheckpointHook', 'CheckpointHook')):
        folder = tmp_path / first
        run(folder, one_cycle, hook=first)
        resumed = run(folder, one_cycle, hook=second, resume=str(folder / 'iter_2.pth'), steps=4)
        assert len(resumed.message_hub.log_scalars['train/loss'].data[0]) == 4
        lr = resumed.optim_wrapper.param_groups[0]['lr']
        assert lr == whole.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.1411289)


def test_state_of_the_wrappers(tmp_path, monkeypatch):
    module = importlib.import_module('mmengine.optim.optimizer.amp_optimizer_wrapper')
    monkeypatch.setattr(module, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(module, 'GradScaler', lambda **kw: torch.amp.GradScaler('cpu', **kw))
    optimizer = torch.optim.AdamW(Model().parameters(), lr=0.1)
    amp = AmpOptimWrapper(optimizer=optimizer, loss_scale=dict(init_scale=8.0))
    state = OptimWrapperDict(a=amp, b=OptimWrapper(optimizer=optimizer)).state_dict()
    torch.save(dict(state_dict={}, optimizer=state), tmp_path / 'a.pth')
    loaded = read_checkpoint(tmp_path / 'a.pth')['optimizer']
    assert loaded['a']['loss_scaler']['scale'] == 8.0
    assert loaded['b']['param_groups'][0]['betas'] == (0.9, 0.999)


class Call:

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts

    def __call__(self):
        """So that a pickle can call the result of a call."""


ONE_CYCLE = PARAM_SCHEDULERS.get('OneCycleLR')
FLOATS = Call(np.dtype, ('f8', False, True), (3, '|', None, None, None, -1, -1, 63))


@pytest.mark.parametrize('forged, named', [
    (Call(eval, ('1', )), r'it refers to eval'),
    (Call(CheckpointHook, (1, )), r'mmengine\.hooks\.checkpoint_hook\.CheckpointHook'),
    (Call(getattr, (ONE_CYCLE, '__init__'), {}), "but got <class 'type'>"),
    (Call(getattr, (Call(getattr, (torch.Tensor, 'share_memory_')), 'x')), 'it asks for '),
    (Call(ONE_CYCLE, (1, )), 'it makes an object of a class of functions'),
    (Call(Call(getattr, (ONE_CYCLE, 'step')), ()), 'it makes an object of a class of functions'),
    (Call(np.ndarray, ((1, ), 'O', b'A' * 8)), 'it calls numpy.ndarray'),
    (Call(np.dtype, ('O', False, True)), r"it refers to numpy\.dtype\('O'\)"),
    (Call(np.dtype, ('f8,O', )), r"it refers to numpy\.dtype\('f8,O'\)"),
    (Call(np.float64(1).__reduce__()[0], (FLOATS, b'A')), 'buffer is too small'),
])
def test_what_runs_code_or_reads_memory_is_refused_by_name(forged, named, tmp_path):
    path = tmp_path / 'forged.pth'
    torch.save(dict(state_dict={}, extra=forged), path)
    with pytest.raises(UserError, match=named) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(f'checkpoint {path}: ')
    assert '\x1b' not in str(error.value) and 'add_safe_globals' not in str(error.value)
    assert str(error.value).endswith('save its state_dict alone')
