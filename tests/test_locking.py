"""A lock ends with its process, and only with it; temporary files of two writers are two."""
import os
import signal
import subprocess
import sys
import time

import pytest

from data_converter import nuscenes_frame
from data_converter.common import alone_in
from mmdet3d_plugin.checkpoints import atomic_write, remove_temporary
from mmdet3d_plugin.deployment.export import Options, export_student
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.locking import drawing_into, locked
from tools import browse_dataset, visualize

HOLD = """
import os, sys, time
from mmdet3d_plugin.locking import locked
with locked(sys.argv[1], 'busy'):
    if not os.fork():
        time.sleep(60)  # as a data worker
        os._exit(0)
    print('held', flush=True)
    time.sleep(60)
"""


def test_the_lock_says_who_holds_it_and_ends_with_a_kill(tmp_path):
    path = tmp_path / 'new' / '.lock'
    holder = subprocess.Popen([sys.executable, '-c', HOLD, str(path)], stdout=subprocess.PIPE,
                              start_new_session=True)
    try:
        assert holder.stdout.readline() == b'held\n'
        for _ in range(2):  # the second one still knows
            with pytest.raises(UserError, match=rf'^busy \(running: host \S+, pid {holder.pid}\)$'):
                with locked(path, 'busy'):
                    pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with locked(path, 'busy'):  # although its child lives
            assert path.read_text().endswith(f'pid {os.getpid()}\n')
        assert not path.exists()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_a_started_program_holds_the_lock_of_a_killed_one(tmp_path):
    path = tmp_path / '.lock'
    with locked(path, 'busy') as lock:
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],
                                 pass_fds=(lock, ))
    try:
        with pytest.raises(UserError, match='busy'), locked(path, 'busy'):
            pass
    finally:
        child.kill()
        child.wait()
    with locked(path, 'busy'):
        pass


def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, 'Operation not supported')
    monkeypatch.setattr('fcntl.flock', refuse)
    with locked(tmp_path / '.lock', 'busy'):
        pass


def test_the_lock_is_no_way_to_another_file(tmp_path):
    (tmp_path / 'precious').write_text('content')
    (tmp_path / '.lock').symlink_to(tmp_path / 'precious')
    with pytest.raises(UserError, match='.lock: a link in place of the lock; remove it'), \
            locked(tmp_path / '.lock', 'busy'):
        pass
    assert (tmp_path / 'precious').read_text() == 'content'


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / 'file'
    with atomic_write(path) as first:
        first.write(b'first')
        with atomic_write(path) as second:
            second.write(b'second, longer')
        assert path.read_bytes() == b'second, longer'
    assert path.read_bytes() == b'first'
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_what_a_kill_left_is_removed(tmp_path):
    left = tmp_path / '.iter_5.pth.0123456789abcdef.tmp'
    for name in (left.name, '.mine.tmp', 'iter_4.pth'):
        (tmp_path / name).touch()
    remove_temporary(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['.mine.tmp', 'iter_4.pth']


def test_a_rank_ends_with_its_launcher(tmp_path):
    rank = ('import os, time; from mmdet3d_plugin.engine.cli import end_with_parent; '
            'end_with_parent(); print(os.getpid(), flush=True); time.sleep(60)')
    launcher = subprocess.Popen(
        [sys.executable, '-c', 'import subprocess, sys; subprocess.run([sys.executable, "-c", '
         'sys.argv[1]])', rank], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    pid = int(launcher.stdout.readline())
    launcher.kill()
    launcher.wait()
    deadline = time.time() + 10
    while time.time() < deadline and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def test_of_many_processes_one_holds_the_lock(tmp_path):
    """Each appends to a file while it holds the lock; the lines of two would mix."""
    work = ('import sys, time\n'
            'from mmdet3d_plugin.errors import UserError\n'
            'from mmdet3d_plugin.locking import locked\n'
            'done = 0\n'
            'while done < 40:\n'
            '    try:\n'
            '        with locked(".lock", "busy"), open("log", "a") as log:\n'
            '            for word in ("begin", "end"):\n'
            '                print(word, file=log, flush=True)\n'
            '                time.sleep(0.0002)\n'
            '            done += 1\n'
            '    except UserError:\n'
            '        pass\n')
    processes = [subprocess.Popen([sys.executable, '-c', work], cwd=tmp_path) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (tmp_path / 'log').read_text().split() == ['begin', 'end'] * 120


@pytest.mark.parametrize('tool, words', [
    (visualize, ('config.py', 'a.pth')), (browse_dataset, ('config.py', ))])
def test_images_of_two_processes_are_not_mixed(tool, words, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool', *words, '--out-dir', str(tmp_path)])
    with drawing_into(tmp_path), pytest.raises(
            UserError, match=f'another process draws into {tmp_path}; .*pid {os.getpid()}'):
        tool.main()
    with pytest.raises(UserError, match='no such file'):
        tool.main()


def test_exports_of_two_processes_are_not_mixed(tmp_path):
    out = tmp_path / 's.onnx'
    with locked(tmp_path / '.s.onnx.lock', 'busy'), pytest.raises(
            UserError, match=f'another process exports to {out}; wait'):
        export_student(None, None, out, Options())


def test_conversions_of_a_keyframe_are_not_mixed(tmp_path):
    with alone_in(str(tmp_path)), pytest.raises(UserError, match='another conversion writes to'):
        nuscenes_frame.convert(str(tmp_path / 'nowhere'), str(tmp_path))
