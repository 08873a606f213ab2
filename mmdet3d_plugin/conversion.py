"""Checkpoints of other code bases: every entry renamed or set aside, and back again."""
import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Callable, Dict, Iterable, Mapping, NamedTuple, Sequence, Tuple

from torch import Tensor, nn

from .checkpoints import read_checkpoint, save_checkpoint, shapes_of, state_difference
from .errors import UserError

Rules = Sequence[Tuple[str, str]]


class Layout(NamedTuple):
    """Where a foreign checkpoint keeps the entries of one of our models.

    Attributes:
        names (dict): Foreign name to ours, for every entry of the model.
        shapes (dict): Our names to shapes.
        unused (dict): Pattern of foreign entries without a counterpart here, to the reason.
    """
    names: Dict[str, str]
    shapes: Dict[str, Tuple[int, ...]]
    unused: Dict[str, str]

    @classmethod
    def of(cls, model: nn.Module, foreign: Callable[[Iterable[str]], Dict[str, str]],
           unused: Mapping[str, str]) -> 'Layout':
        """The layout of a built model.

        Args:
            model (nn.Module): Ours.
            foreign (callable): Our names to a dict {our name: foreign name}.
            unused (dict): See the class.
        """
        shapes = shapes_of(model)
        theirs = foreign(shapes)
        names = {theirs[key]: key for key in shapes}
        if len(names) != len(shapes):
            raise ValueError('two entries share a foreign name')
        return cls(names, shapes, dict(unused))

    def reason(self, name: str) -> str:
        """Why a foreign entry has no counterpart; empty if it is unknown."""
        return next((why for pattern, why in self.unused.items() if re.fullmatch(pattern, name)),
                    '')

    def check(self, source: Mapping[str, Tensor]) -> None:
        """Check that a foreign checkpoint is this one.

        Raises:
            UserError: An entry is missing, unknown, of another shape or not finite.
        """
        known = {name: value for name, value in source.items()
                 if name in self.names or not self.reason(name)}
        _raise_if(state_difference({name: self.shapes[ours] for name, ours in self.names.items()},
                                   known))
        broken = [f'{name} holds NaN or infinity' for name, value in source.items()
                  if value.is_floating_point() and not value.isfinite().all()]
        _raise_if('; '.join(broken[:3]))

    def convert(self, source: Mapping[str, Tensor]) -> Tuple[Dict[str, Tensor], Dict[str, Tensor]]:
        """Rename a foreign checkpoint.

        Returns:
            tuple: our entries, in the model's order, and the foreign ones set aside.

        Raises:
            UserError: An entry is missing, unknown, of another shape or not finite.
        """
        self.check(source)
        theirs = {ours: name for name, ours in self.names.items()}
        state = {ours: source[theirs[ours]] for ours in self.shapes}
        return state, {name: value for name, value in source.items() if name not in self.names}

    def revert(self, state: Mapping[str, Tensor], aside: Mapping[str, Tensor]) -> Dict[str, Tensor]:
        """The reverse of :meth:`convert`."""
        _raise_if(state_difference(self.shapes, state))
        source = {**{name: state[ours] for name, ours in self.names.items()}, **aside}
        self.check(source)
        return source


def weights_of(checkpoint: Mapping) -> Dict[str, Tensor]:
    """The weights in a foreign file, without the prefixes that wrappers add."""
    state = next((checkpoint[key] for key in ('model_state_dict', 'state_dict')
                  if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    for prefix in ('module.', 'model.'):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def rename(key: str, rules: Rules) -> str:
    """Apply each (regular expression, replacement) in turn."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


_BLOCK = (('expand_conv.conv', '_expand_conv'), ('expand_conv.bn', '_bn0'),
          ('depthwise_conv.conv', '_depthwise_conv'), ('depthwise_conv.bn', '_bn1'),
          ('se.conv1.conv', '_se_reduce'), ('se.conv2.conv', '_se_expand'),
          ('linear_conv.conv', '_project_conv'), ('linear_conv.bn', '_bn2'))


def efficientnet_names(keys: Iterable[str], prefix: str = '') -> Dict[str, str]:
    """Names of our EfficientNet's entries in ``efficientnet-pytorch``, which counts all blocks.

    Args:
        keys (iterable): Names; those that do not start with ``prefix + 'layers.'`` are left out.
        prefix (str): Of the backbone, with its dot.
    """
    keys = [key for key in keys if key.startswith(f'{prefix}layers.')]
    blocks = sorted({tuple(map(int, found.groups())) for found in (
        re.match(rf'{re.escape(prefix)}layers\.(\d+)\.(\d+)\.', key) for key in keys) if found})
    rules = [(rf'^layers\.{stage}\.{block}\.', f'_blocks.{number}.')
             for number, (stage, block) in enumerate(blocks)]
    rules += [(rf'^(_blocks\.\d+)\.{re.escape(ours)}\.', rf'\1.{theirs}.')
              for ours, theirs in _BLOCK]
    rules += [(r'^layers\.0\.conv\.', '_conv_stem.'), (r'^layers\.0\.bn\.', '_bn0.'),
              (r'^layers\.\d+\.conv\.', '_conv_head.'), (r'^layers\.\d+\.bn\.', '_bn1.')]
    return {key: rename(key[len(prefix):], rules) for key in keys}


def run_converter(description: str, models: Sequence[str], convert: Callable,
                  revert: Callable) -> None:
    """The command of a project's converter: ``SRC DST --model MODEL [--reverse]``.

    Args:
        description (str): Help text.
        models (sequence): Choices of ``--model``.
        convert, revert (callable): (checkpoint, model) to the new file's content and a report.

    Raises:
        UserError: The file is not a checkpoint of the model.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SRC', help='checkpoint to read')
    parser.add_argument('target', metavar='DST', help='checkpoint to write')
    parser.add_argument('--model', required=True, choices=tuple(models))
    parser.add_argument('--reverse', action='store_true', help='from ours to the release')
    args = parser.parse_args()
    checkpoint, work = read_checkpoint(args.source), revert if args.reverse else convert
    try:
        content, report = work(checkpoint, args.model)
    except UserError as error:
        raise UserError(f'{args.source}: not a checkpoint of {args.model} '
                        f'{"trained here" if args.reverse else "of the release"}: {error}; check '
                        '--model') from error
    save_checkpoint(content, args.target)
    print(f'{report}\nwrote {args.target}')


def _raise_if(problem: str) -> None:
    if problem:
        raise UserError(problem)
