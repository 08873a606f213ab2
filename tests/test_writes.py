"""Files are written whole and checked: which calls that write there are, and where."""
import ast
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_converter import common
from data_converter.toytown import folder
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.structures import file_name
from mmdet3d_plugin.visualization import save_image
from tests.tools.test_rigs import tool  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for top in ('mmdet3d_plugin', 'data_converter', 'tools', 'projects')
                 for path in (ROOT / top).rglob('*.py'))
TO_PATHS = {'imwrite', 'VideoWriter', 'write_text', 'write_bytes', 'tofile', 'save', 'savez',
            'savez_compressed', 'savefig', 'savetxt', 'dump', 'dump_json', 'copyfile', 'copy2'}
BUFFERS = {'file', 'buffer', 'packed'}
"""Names of what is open already: by ``atomic_write``, or in memory."""
ALLOWED = {
    'mmdet3d_plugin/checkpoints.py': {"open(temporary, 'xb')"},  # atomic_write itself
    'mmdet3d_plugin/plain_pickle.py': {'_DepthPickler(_Nowhere()).dump(content)'},  # no file
    'mmdet3d_plugin/benchmark/memory.py': {"Path('/proc/self/clear_refs').write_text('5')"},
    'mmdet3d_plugin/datasets/transforms/caching.py': {"open(temporary, 'wb')"},  # a unique name
    'mmdet3d_plugin/deployment/exporting.py': {'onnx.save(model, paths[0])'},  # temporary folder
    'mmdet3d_plugin/experiments/process.py': {"open(log, 'a', encoding='utf-8')",
                                              "open(path, 'a')"},  # a log and a lock
    'mmdet3d_plugin/visualization/video.py': {  # in a temporary folder
        'cv2.VideoWriter(str(self.path), code, self.fps, self.size[::-1])'},
    'data_converter/common.py': {"open(path, 'ab', opener=_no_link)",
                                 "open(path, 'rb+', opener=_no_link)"},  # the journal
    'data_converter/toytown/folder.py': {"open(part, 'xb')"},
    'tools/infer_onnx.py': {  # it has a writer of its own, and reads the video back
        "open(temporary, 'xb')", "open(self.list, 'ab', opener=no_link)",
        "cv2.VideoWriter(str(self.partial), cv2.VideoWriter_fourcc(*'mp4v'), self.fps, "
        'image.shape[1::-1])'}}


def writes(call):
    """Whether a call may write a file that it names itself."""
    name = getattr(call.func, 'attr', '')
    if 'open' in (name, getattr(call.func, 'id', '')):
        modes = [node.value for node in [*call.args[1:2], *(k.value for k in call.keywords
                                                            if k.arg == 'mode')]
                 if isinstance(node, ast.Constant)]
        return any(set(mode) & set('wax+') for mode in modes if isinstance(mode, str))
    return name in TO_PATHS and not any(
        isinstance(node, ast.Name) and node.id in BUFFERS for node in call.args)


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_writes_past_the_atomic_writer(path):
    allowed = ALLOWED.get(str(path.relative_to(ROOT)), set())
    found = {ast.unparse(node): node.lineno for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and writes(node)}
    found = {text: line for text, line in found.items()
             if text not in allowed and not text.startswith('folder.save(')}  # which is atomic
    assert not found, f'{path}: write with atomic_write or save_image: {found}'


def test_the_search_finds_what_it_is_for():
    for text in ("open(path, 'w')", "open(path, mode='ab')", "cv2.imwrite('a.png', image)",
                 "path.write_text('x')", 'figure.savefig(path)', 'np.savez(path, **maps)'):
        assert writes(ast.parse(text).body[0].value), text
    for text in ("open(path)", "open(path, 'rb')", 'np.savez(file, **maps)'):
        assert not writes(ast.parse(text).body[0].value), text


@pytest.mark.parametrize('token, name', [
    ('n015-2018', 'n015-2018'), ('a/b', 'a_b'), ('../../etc/x', '_.._etc_x'), ('/x', '_x'),
    ('', 'frame'), ('.', 'frame'), ('..', 'frame'), ('a\0b\nc', 'a_b_c'), ('a\\b', 'a_b'),
    ('x' * 300, 'x' * 100)])
def test_names_of_tokens_stay_in_their_folder(token, name, tmp_path):
    assert file_name(token) == name
    save_image(tmp_path / 'out' / f'{file_name(token)}.png', np.zeros((2, 3, 3), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ['out']
    assert len(list((tmp_path / 'out').iterdir())) == 1


def test_a_full_disk_is_a_user_error(monkeypatch, tmp_path):
    def full(fd):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match='a.png: cannot write: No space left on device'):
        save_image(tmp_path / 'a.png', np.zeros((2, 3, 3), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def target(tmp_path):
    """A file of somebody else's."""
    path = tmp_path / 'other' / 'precious'
    path.parent.mkdir()
    path.write_bytes(b'precious')
    yield path
    assert path.read_bytes() == b'precious'


def test_journals_that_are_links_are_not_followed(target, tmp_path):
    journal = tmp_path / 'a.pkl.journal'
    journal.symlink_to(target)
    with pytest.raises(UserError, match=r'a\.pkl\.journal: cannot write: .*symbolic link'):
        common.convert_frames(lambda key: dict(key=key), [1], str(journal))
    journal.unlink()
    journal.symlink_to(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='symbolic link'):
        common.convert_frames(lambda key: dict(key=key), [1], str(journal))
    assert not (tmp_path / 'nowhere').exists()


def test_temporary_names_that_are_links_are_not_followed(target, tool, tmp_path):  # noqa: F811
    (tmp_path / f'.a.json.{os.getpid()}.tmp').symlink_to(target)
    folder.save(tmp_path / 'a.json', b'mine')
    (tmp_path / '.tmp.b.png').symlink_to(target)
    tool.write_whole(tmp_path / 'b.png', b'mine')
    for name in ('a.json', 'b.png'):
        path = tmp_path / name
        assert path.read_bytes() == b'mine' and not path.is_symlink()
    (tmp_path / 'frames.txt').symlink_to(target)
    (tmp_path / 'run.json').write_text('{}')
    results = tool.Results(tmp_path, {})
    with pytest.raises(tool.InputError, match='frames.txt: cannot write: .*symbolic link'):
        results.add('bev/c.png', 'hash', b'mine')


def test_videos_are_read_back(target, tool, tmp_path):  # noqa: F811
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    (tmp_path / '.tmp.a.mp4').symlink_to(target)
    video = tool.Video(tmp_path / 'a.mp4', 10)
    for _ in range(5):
        video.write(image)
    video.finish()
    assert cv2.VideoCapture(str(tmp_path / 'a.mp4')).get(cv2.CAP_PROP_FRAME_COUNT) == 5
    cut = tool.Video(tmp_path / 'b.mp4', 10)
    for _ in range(5):
        cut.write(image)
    cut.writer.release()
    data = cut.partial.read_bytes()
    at = data.index(b'mdat') + 4
    cut.partial.write_bytes(data[:at] + bytes(40_000) + data[at + 40_000:])
    with pytest.raises(tool.InputError, match=r'b\.mp4: cannot write all 5 images; make room'):
        cut.finish()
    cut.close()
    nowhere = tool.Video(tmp_path / 'none' / 'c.mp4', 10)
    (tmp_path / 'none').write_text('a file')
    with pytest.raises(tool.InputError, match=r'c\.mp4: cannot write'):
        nowhere.write(image)
    assert sorted(p.name for p in tmp_path.glob('*.mp4')) == ['a.mp4']
