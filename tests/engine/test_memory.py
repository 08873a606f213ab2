"""Freed memory is reused: after some rounds no page is asked for again."""
import platform

import pytest
import torch
from torch import nn

from mmdet3d_plugin.engine import runner

_FAULTS = '''
import resource, sys, torch
from mmdet3d_plugin.engine.memory import keep_freed_memory
if sys.argv[1] == 'keep':
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(64 << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults() for _ in range(8)))
'''


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='tunes the memory of glibc')
def test_large_blocks_are_reused(run_command):
    found = {mode: int(run_command('-c', _FAULTS, mode).stdout.split()[-1])
             for mode in ('keep', 'return')}
    assert found['keep'] < 100  # 64 MiB are 16 384 pages of 4 KiB, or 32 of 2 MiB
    assert found['return'] > 10 * found['keep'] + 10


@pytest.mark.parametrize('value, kept', [(True, True), (False, False), (None, False)])
def test_the_switch_of_the_config_is_logged(value, kept, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(runner, 'keep_freed_memory', lambda: calls.append(1) or True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    env_cfg = {} if value is None else dict(keep_freed_memory=value)
    made = runner.PluginRunner(nn.Linear(1, 1), str(tmp_path), env_cfg=env_cfg,
                                default_scope='mmdet3d')
    log = (tmp_path / made.timestamp / f'{made.timestamp}.log').read_text()
    assert bool(calls) == kept == ('env_cfg.keep_freed_memory: the C library keeps' in log)
