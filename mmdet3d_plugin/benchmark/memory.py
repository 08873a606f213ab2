"""How much memory a prediction takes."""
import copy
import ctypes
import multiprocessing
import re
import sys
from pathlib import Path

import torch
from torch import nn

from ..errors import UserError
from .backends import build_backend

_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def peak_memory(model: nn.Module, backend: str, batch: dict) -> float:
    """Peak memory of a process that does nothing but predict, or of its GPU, MiB.

    What the process took to build model and backend is not counted unless it is still held.

    Args:
        model (nn.Module): As built from its config, in eval mode.
        backend (str): See :func:`build_backend`.
        batch (dict): Packed frames, collated.

    Raises:
        UserError: The process ended early, such as for want of memory.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    device = next(model.parameters()).device  # sent as it is, a GPU's weights would be the parent's
    process = context.Process(target=_measure, args=(
        sender, model if device.type == 'cpu' else copy.deepcopy(model).cpu(), device, backend,
        batch, torch.get_num_threads()))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise UserError(f'{backend}: the process that measures its memory ended early; free '
                        'memory, or do not measure it') from None
    finally:
        process.join()


@torch.no_grad()
def _measure(sender, model, device, name, batch, threads):
    torch.set_num_threads(threads)
    model.to(device)
    if hasattr(ctypes.CDLL(None), 'mallopt') and sys.platform == 'linux':
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 2**16)  # what is freed goes back at once
    backend = build_backend(name, model, batch)

    def predict():
        backend.postprocess(backend.run(backend.preprocess(batch)))

    predict()  # constants are made, and all that is done once
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        predict()
        return sender.send(torch.cuda.max_memory_allocated() / 2**20)
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
    predict()
    return sender.send(peak_resident())


def peak_resident() -> float:
    """Most resident memory of this process, MiB; ``ru_maxrss`` also counts who started it."""
    found = re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(found[1]) / 1024
