"""Freed memory is reused: after some rounds no page is asked for again."""
import platform

import pytest

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
