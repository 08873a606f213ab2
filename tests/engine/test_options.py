"""What the text of --cfg-options means, and that it reaches what config files compute."""
import ast
from pathlib import Path

import pytest

from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.config import RUNNER_KEYS
from mmdet3d_plugin.engine.options import OptionText, differences, entries, entry, value_of
from mmdet3d_plugin.errors import UserError

STUDENT = 'configs/kd360/kd360_student_r18_500it_toytown.py'
DISTILL = 'configs/kd360/kd360_distill_r18_500it_toytown.py'
LOADERS = [f'{split}_dataloader' for split in ('train', 'val', 'test')]
OFTEN = '# Often changed ---'


@pytest.mark.parametrize('text, old, expected', [
    ('with space', 'data/', 'with space'), ('a,b', 'data/', 'a,b'), ('007', 'data/', '007'),
    ("o'clock", 'data/', "o'clock"), ('7', 'data/', '7'), ('1e3', 'x', '1e3'),
    ('(old)', 'x', '(old)'), ('[x]', 'x', '[x]'), ('a=b', 'x', 'a=b'), ('', 'x', ''),
    ('None', 'x', None),
    ('True', 'x', True), ('[car,bus]', 'car', ['car', 'bus']), ('"None"', 'x', 'None'),
    ('7', None, 7), ('-7', 1, -7), ('007', None, '007'), ('1_000', None, '1_000'),
    ('1e-3', None, 0.001), ('.5', 1, 0.5), ('0.50', 1, 0.5), ('00.5', None, '00.5'),
    ('false', None, False), ('with space', None, 'with space'), ("'a,b'", None, 'a,b'),
    ('1,2', None, [1, 2]), ('8, 11', [3], [8, 11]), ('a,b', ['x'], ['a', 'b']), ('[]', [1], []),
    ('[a, b c]', None, ['a', 'b c']), ('(1,)', (2, ), (1, )), ('[(1,2),[3]]', None, [(1, 2), [3]]),
    ("['a,b',c]", None, ['a,b', 'c']), ("{'type':'X','n':2}", None, dict(type='X', n=2))])
def test_the_meaning_of_a_text(text, old, expected):
    found = value_of('key', text, old)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize('text, message', [
    ('a,b', 'a list or a text with a comma'), ('[1,2', 'do not match'), ('(1,2)]', 'do not match'),
    ("['a,b]", 'do not match'), ('{type:X}', 'a dict as Python writes it')])
def test_a_text_without_one_meaning(text, message):
    with pytest.raises(UserError, match=message):
        value_of('key', text, None)


def test_text_of_the_command_line_is_read_by_the_entry_that_it_replaces():
    options = {'train_dataloader.dataset.data_root': OptionText('007'), 'lr': OptionText('0.5'),
               'load_from': OptionText('my run/1.pth'), 'own_key': OptionText('3')}
    cfg = load_config(STUDENT, options)
    assert cfg.train_dataloader.dataset.data_root == '007' and cfg.load_from == 'my run/1.pth'
    assert cfg.optim_wrapper.optimizer.lr == 0.5 and cfg.own_key == 3


def test_a_variable_reaches_what_the_files_compute_from_it():
    cfg = load_config(STUDENT, dict(data_root='D', batch_size=1, num_workers=0, lr=0.5,
                                    max_iters=40))
    for loader in LOADERS:
        assert cfg[loader].dataset.data_root == 'D' and cfg[loader].batch_size == 1
        assert not cfg[loader].persistent_workers
    assert cfg.optim_wrapper.optimizer.lr == cfg.param_scheduler[0].eta_max == 0.5
    assert cfg.param_scheduler[0].total_steps == 41
    assert cfg.train_cfg.max_iters == 40 and cfg.train_cfg.val_interval == 10


def test_a_variable_of_a_base_reaches_the_files_that_inherit_it():
    cfg = load_config(DISTILL, {'teacher.checkpoint': 'T.pth', 'gamma_student': 2.0, 'channels': 8,
                                'grid.resolution': 2.0})
    assert cfg.model.teacher.checkpoint == 'T.pth'
    assert cfg.model.teacher.config == 'configs/kd360/kd360_teacher_r18_500it_toytown.py'
    assert cfg.model.terms.student.weight == 2.0 and cfg.model.student.grid.resolution == 2.0
    targets, = (t for t in cfg.train_dataloader.dataset.pipeline if t['type'] == 'RasterizeBEV')
    assert targets.grid.resolution == 2.0


def test_a_dict_is_merged_into_a_variable_as_into_an_entry():
    teacher = load_config(DISTILL, {'teacher': dict(bf16=True)}).model.teacher
    assert teacher.bf16 and teacher.config.endswith('kd360_teacher_r18_500it_toytown.py')
    weight = load_config(DISTILL, {'gamma_student': dict(value=2.0, ramp=10)})
    assert weight.model.terms.student.weight == dict(value=2.0, ramp=10)


def test_an_entry_wins_over_the_variable_that_fills_it():
    cfg = load_config(STUDENT, {'data_root': 'D', 'val_dataloader.dataset.data_root': 'E'})
    assert [cfg[loader].dataset.data_root for loader in LOADERS] == ['D', 'E', 'D']


def test_a_variable_whose_entries_are_all_set_is_an_error():
    entries = {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 2,
               'param_scheduler.0.total_steps': 5}
    with pytest.raises(UserError, match='max_iters.*set the entry itself: train_cfg.max_iters'):
        load_config(STUDENT, {**entries, 'max_iters': 8})


def test_a_variable_without_effect_is_an_error(tmp_path):
    dumped = tmp_path / 'dumped.py'
    load_config(STUDENT).dump(dumped)
    with pytest.raises(UserError, match='set the entry itself: .*train_dataloader.batch_size'):
        load_config(dumped, dict(batch_size=1))
    with pytest.raises(UserError, match='did you mean .batch_size.'):
        load_config(STUDENT, dict(batchsize=1))
    affinity = 'configs/kd360/kd360_distill_r18_500it_toytown_affinity.py'
    with pytest.raises(UserError, match='no entry of .* follows this variable'):
        load_config(affinity, {'channel_wise_kl.temperature': 9.0})
    assert load_config(dumped, dict(batch_size=4)).batch_size == 4  # no other value
    assert load_config(STUDENT, dict(hook_option=1)).hook_option == 1


def test_python_of_a_config_file_may_assign_a_variable_in_any_way(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text('a, b = 1, 2\nif a > 1:\n    c = a * 10\nelse:\n    c = 0\n'
                    'n: int = 4\nn += 1\ndef double(a):\n    a = a * 2\n    return a\n'
                    'model = dict(c=c, d=double(b), n=n)\n')
    assert load_config(path).model == dict(c=0, d=4, n=5)
    assert load_config(path, dict(a=3)).model == dict(c=30, d=4, n=5)
    assert load_config(path, dict(b=5, n=7)).model == dict(c=0, d=10, n=7)
    assert load_config(path).model == dict(c=0, d=4, n=5)


def _bases(path):
    tree = ast.parse(path.read_text())
    lists = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
             and getattr(node.targets[0], 'id', '') == '_base_']
    return [path, *(inner for found in lists for base in ([found] if isinstance(found, str) else
                                                          found)
                    for inner in _bases((path.parent / base).resolve()))]


def _often_changed(path):
    section = path.read_text().partition(OFTEN)[2].partition('\n')[2].partition('# Sometimes')[0]
    section = section.partition('# Rarely')[0]
    return {node.id for node in ast.walk(ast.parse(section))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _other(value):
    if isinstance(value, dict):
        key = next(key for key in value if key != 'type')
        return {**value, key: _other(value[key])}
    return value + 'x' if isinstance(value, str) else 2 * value + 1


@pytest.mark.parametrize('config', [
    STUDENT, DISTILL, 'configs/kd360/kd360_student_effb0_12k_kitti360.py',
    'configs/bridgeta/bridgeta_distill_swint_20e_nuscenes.py',
    'configs/bridgeta/bridgeta_teacher_swint-voxel_20e_nuscenes.py',
    'configs/kd360/release/kd360_distill_effb0_12k_dur360bev.py'])
def test_every_variable_under_often_changed_changes_the_run(config):
    plain = load_config(config)
    names = set().union(*(_often_changed(path) for path in _bases(Path(config).resolve())))
    assert {'data_root', 'lr'} <= names
    for name in names:
        changed = differences(plain, load_config(config, {name: _other(plain[name])}))
        assert any(key.split('.')[0] in RUNNER_KEYS for key in changed), name


def test_entries_and_differences():
    one, other = dict(a=[1, dict(b=2)], c={}), dict(a=[1, dict(b=3)], d=4)
    assert entries(one) == {'a.0': 1, 'a.1.b': 2, 'c': {}}
    assert differences(one, other) == {'a.1.b': (2, 3), 'c': ({}, '(none)'), 'd': ('(none)', 4)}
    assert entry(one, 'a.1.b') == 2 and entry(one, 'a.9.b') is None and entry(one, 'x') is None


def test_the_command_line_keeps_what_was_typed(run_command):
    done = run_command('tools/print_config.py', STUDENT, '--cfg-options',
                       "data_root=it's, 007/x y", 'lr=1e-2', 'work_dir=007')
    assert done.returncode == 0, done.stderr
    assert 'data_root="it\'s, 007/x y"' in done.stdout and "work_dir = '007'" in done.stdout
    assert 'eta_max=0.01' in done.stdout
