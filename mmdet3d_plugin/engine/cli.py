"""Functions common to the command line tools."""
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from argparse import Action, ArgumentParser, Namespace
from pathlib import Path
from typing import Callable, Dict, Iterator, Mapping, Optional, Sequence

import torch.distributed

from ..checkpoints import atomic_write, file_sha256
from ..errors import UserError, parse_errors
from ..locking import LAUNCHER
from .environment import explain
from .options import OptionText


class CfgOptions(Action):
    """``--cfg-options key=value ...`` as ``{key: OptionText}``, which :func:`load_config` reads."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Sequence[str],
                 option_string: str = None) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for word in values:
            key, found, text = word.partition('=')
            if not found or not key:
                parser.error(f'{option_string}: expected key=value, got {word!r}; a value with '
                             'spaces needs quotes')
            options[key] = OptionText(text)
        setattr(namespace, self.dest, options)


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that every tool with a config has."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, default={}, metavar='KEY=VALUE',
        help='override config values, e.g. train_dataloader.batch_size=2')


def read_result(path: str) -> Dict[str, float]:
    """The metrics in a file of tools/test.py or tools/run_experiments.py."""
    hint = 'give the .json that tools/test.py or tools/run_experiments.py wrote'
    with parse_errors(f'result {path}: unreadable', hint):
        content = json.loads(Path(path).read_text())
        values = content.get('metrics', content)
        found = {key: value for key, value in values.items() if '/' in key}
    if not found:
        raise UserError(f'result {path}: it holds no metrics such as bev/IoU100; {hint}')
    for key, value in found.items():
        if type(value) not in (int, float) or not abs(value) < 1e300 and value == value:
            raise UserError(f'result {path}: {key}: expected a number, got {value!r:.60}; {hint}')
    return found


def name_origin(path: Path, metrics: Mapping, args: Namespace) -> None:
    """Add what was evaluated to the file of metrics that mmengine's logger wrote.

    Args:
        path (Path): The ``.json`` file; :func:`read_result` reads it.
        metrics (dict): Of the evaluation; mmengine writes null for its integers.
        args (Namespace): ``config``, ``cfg_options`` and ``checkpoint`` of the command line.
    """
    counts = {name: value for name, value in metrics.items() if type(value) is int}
    content = dict({**json.loads(path.read_text()), **counts}, config=args.config,
                   cfg_options=args.cfg_options, checkpoint=args.checkpoint,
                   checkpoint_sha256=file_sha256(args.checkpoint))
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool: an error of the user is one line and exit code 2, a defect a traceback and 1.

    So is a fault of the machine; see :func:`.environment.explain`.

    Set the environment variable ``MMDET3D_PLUGIN_DEBUG=1`` to see the traceback of both.
    """
    try:
        if LAUNCHER in os.environ:  # what this tool starts has another one
            end_with_parent(int(os.environ.pop(LAUNCHER)))
        main()
        _leave_process_group()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = message_of(error) if isinstance(error, UserError) else explain(error)
        if message is None:
            raise
        if os.environ.get('MMDET3D_PLUGIN_DEBUG') == '1':
            traceback.print_exc()
        print(f'error: {message}', file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def ended_by_interrupt(message: str) -> Iterator[None]:
    """Let Ctrl-C end the process at once, with exit code 130: no code in between can catch it.

    What is written atomically stays whole. Data workers are ended too.

    Args:
        message (str): The last line on stderr.
    """
    process, before = os.getpid(), signal.getsignal(signal.SIGINT)

    def end(*_) -> None:
        if os.getpid() != process:
            return  # a data worker, which its parent ends
        _end(130, f'\n{message}\n')

    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield  # started in the background, or by a program with signals of its own
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_with_parent(parent: Optional[int] = None) -> None:
    """Let this process end when the launcher that started it has ended, however it did.

    Args:
        parent (int, optional): Process of the launcher. Defaults to the present parent.
    """
    parent = parent or os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        _end(1, 'error: the launcher of this process has ended\n')

    threading.Thread(target=watch, daemon=True).start()


def _end(code: int, message: str) -> None:
    """End this process and its data workers at once."""
    with contextlib.suppress(OSError):  # stderr was a pipe to the launcher
        os.write(2, message.encode())
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def message_of(error: UserError) -> str:
    """The message in one line, without the traceback that a data worker wraps around it."""
    text = str(error)
    name = type(error).__name__
    if text.startswith(f'Caught {name}'):
        text = text.rpartition(f'{name}: ')[2]
    return ' '.join(text.split())


def _leave_process_group() -> None:
    """Wait for the slowest process, then end without the interpreter's shutdown.

    A process that leaves early may crash on its open connections, and threads of the library
    that are still there when the interpreter shuts down now and then abort a finished run.
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
