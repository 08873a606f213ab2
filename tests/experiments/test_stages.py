"""Steps and their memory of what is finished."""
import pytest

from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.experiments.stages import Stage, StageRunner
from mmdet3d_plugin.locking import locked


def code(text):
    return ('-c', text)


@pytest.fixture
def job(tmp_path):
    """Makes a job of two steps: ``a`` appends to a/file, ``b`` counts its lines."""

    def make(word='x', b_fails=False, keep=False):
        a, b = tmp_path / 'a' / 'file', tmp_path / 'b' / 'file'
        write = (f'from pathlib import Path; p = Path({str(a)!r}); p.parent.mkdir(exist_ok=True); '
                 f'p.open("a").write({word + chr(10)!r})')
        count = (f'from pathlib import Path; p = Path({str(b)!r}); p.parent.mkdir(exist_ok=True); '
                 f'p.write_text(Path({str(a)!r}).read_text()); '
                 f'assert not Path({str(tmp_path / "fail")!r}).exists(), "no luck"')
        one = Stage('a', 'write', tmp_path, [code(write)], 'a/file', 'a', keep=keep)
        two = Stage('b', 'count', tmp_path, [code(count)], 'b/file', 'b', [one], keep=keep)
        return StageRunner([one, two], dict(a=10, b=30), tmp_path / 'report')

    return make


def test_finished_steps_are_skipped_and_changed_ones_made_again(job, tmp_path):
    job().run()
    job().run()
    assert (tmp_path / 'b' / 'file').read_text() == 'x\n'
    with pytest.raises(UserError, match='a was made with other settings'):
        job('y', keep=True).run()
    assert (tmp_path / 'a' / 'file').read_text() == 'x\n'
    job('y').run()
    assert (tmp_path / 'b' / 'file').read_text() == 'y\n'  # b depends on a
    (tmp_path / 'a' / 'file').unlink()
    job('y').run()
    assert (tmp_path / 'a' / 'file').read_text() == 'y\n'


def test_a_failing_step_is_one_line_and_is_continued(job, tmp_path):
    (tmp_path / 'fail').touch()
    with pytest.raises(UserError) as stop:
        job().run()
    assert str(stop.value) == ('to count failed (exit code 1): AssertionError: no luck -- whole '
                               f'log: {tmp_path}/logs/b.log; the same command continues here')
    assert 'AssertionError: no luck' in (tmp_path / 'logs' / 'b.log').read_text()
    (tmp_path / 'fail').unlink()
    (tmp_path / 'b' / 'checkpoint').touch()
    job().run()
    assert (tmp_path / 'b' / 'checkpoint').exists()  # continued, not made anew
    assert job().jobs[1].status() == 'finished'


def test_foreign_folders_are_not_touched(job, tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'thesis.tex').touch()
    with pytest.raises(UserError, match='a exists and is not of a quickstart'):
        job().run()
    assert (tmp_path / 'a' / 'thesis.tex').exists()


def test_remaining_time_follows_the_speed_so_far(job, tmp_path):
    first = job()
    assert first.remaining(first.jobs[0]) == 40
    assert first.remaining(first.jobs[0], 4) == 34
    first.run()
    first.jobs[0].note(seconds=20.0)
    (tmp_path / 'b' / 'file').unlink()
    assert first.remaining(first.jobs[1]) == pytest.approx(60)


def test_one_at_a_time(job, tmp_path):
    with locked(tmp_path / '.lock', 'busy'), pytest.raises(UserError, match='another quickstart'):
        job().run()
