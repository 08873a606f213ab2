"""Building parts: errors name the place in the config."""
import zipfile

import pytest
from mmengine.registry import Registry

from mmdet3d_plugin.errors import (
    FrameError,
    UserError,
    build_from,
    check_from,
    did_you_mean,
    parse_errors,
)

PARTS = Registry('part')


@PARTS.register_module()
class Base:

    def __init__(self, init_cfg=None):
        self.init_cfg = init_cfg


@PARTS.register_module()
class Loss(Base):

    def __init__(self, gamma, **kwargs):
        super().__init__(**kwargs)
        if gamma < 0:
            raise ValueError(f'gamma: expected >= 0, got {gamma}')
        self.gamma = gamma


@PARTS.register_module()
class Head(Base):

    def __init__(self, loss, width=3):
        super().__init__()
        self.loss = build_from(PARTS, loss, 'head.loss')
        self.width = width


@PARTS.register_module()
class Model(Base):

    def __init__(self, head):
        super().__init__()
        self.head = build_from(PARTS, head, 'model.head')


@PARTS.register_module()
class Pair(Base):

    def __init__(self, student):
        super().__init__()
        self.student = build_from(PARTS, student, 'model.student')


def model(**loss):
    return dict(type='Model', head=dict(type='Head', loss=dict(type='Loss', **loss)))


def test_builds_and_lets_the_config_win():
    built = build_from(PARTS, model(gamma=2), 'model')
    assert built.head.loss.gamma == 2 and built.head.width == 3
    head = dict(type='Head', loss=None)
    assert build_from(PARTS, head, 'head', width=5).width == 5
    assert build_from(PARTS, {**head, 'width': 4}, 'head', width=5).width == 4
    assert build_from(PARTS, None, 'head') is None


@pytest.mark.parametrize('cfg, message', [
    (model(gamm=2), "model.head.loss (Loss): missing argument 'gamma'; add it to model.head.loss"),
    (model(gamma=2, gama=3), 'model.head.loss.gama: Loss has no such argument; '
                             "did you mean 'gamma'?"),
    (model(gamma=-1), 'model.head.loss (Loss): gamma: expected >= 0, got -1'),
    (dict(type='Model', head=dict(type='Hed')), "model.head.type: 'Hed' is not in the registry "
                                                "'part'; did you mean 'Head'?"),
    (dict(type='Model', head=dict(width=2)), "model.head: the config has no 'type' (it has width)"),
    (dict(type='Model', haed=1), "model.haed: Model has no such argument; did you mean 'head'?"),
    (dict(type='Pair', student=model(gamma=-1)),
     'model.student.head.loss (Loss): gamma: expected >= 0, got -1'),
])
def test_errors_name_the_place(cfg, message):
    with pytest.raises(UserError) as error:
        build_from(PARTS, cfg, 'model')
    assert str(error.value).startswith(message)
    assert build_from(PARTS, model(gamma=1), 'other').head.loss.gamma == 1  # nothing sticks


def test_check_follows_kwargs_to_the_parents_only_if_strict():
    cfg = dict(type='Loss', gamma=1, colour=2)
    assert check_from(PARTS, cfg, 'loss') is Loss
    with pytest.raises(UserError, match='loss.colour: Loss has no such argument'):
        check_from(PARTS, cfg, 'loss', strict=True)
    assert check_from(PARTS, dict(type='Loss', gamma=1, init_cfg=2), 'loss', strict=True) is Loss


def test_did_you_mean():
    assert did_you_mean('validation', ['train', 'val']) == '; known: train, val'
    assert did_you_mean('trian', ['train', 'val']) == "; did you mean 'train'?"
    assert did_you_mean('x', []) == ''


@pytest.mark.parametrize('error, reason', [
    (ValueError('line one\nline two'), 'line one line two'), (KeyError('x'), "no 'x'"),
    (RecursionError('maximum'), 'it is nested too deeply'),
    (MemoryError(), 'it needs more memory than there is'), (EOFError(), 'it is cut short'),
    (OverflowError('int too large'), 'int too large'), (zipfile.BadZipFile('no zip'), 'no zip'),
    (FileNotFoundError(2, 'No such file', 'x'), 'No such file'), (IndexError(), 'IndexError'),
    (ValueError('x' * 5000), 'x' * 200)])
def test_whatever_a_parser_raises_is_one_line(error, reason):
    with pytest.raises(UserError) as caught, parse_errors('a.json: no map', 'download it'):
        raise error
    assert str(caught.value) == f'a.json: no map: {reason}; download it'


def test_other_errors_pass_through_a_parser():
    for error in (UserError('mine'), FrameError('its', 'scan'), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, parse_errors('a.json: no map'):
            raise error
        assert caught.value is error
