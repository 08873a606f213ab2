"""What the measurements and tables of a benchmark share."""
import os
import platform
import re
import time
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence

import numpy as np
import torch
from mmengine.device import get_device

STATISTICS: Dict[str, Callable[[np.ndarray], float]] = {
    'mean': np.mean, 'median': np.median, 'p90': lambda ms: np.percentile(ms, 90),
    'p95': lambda ms: np.percentile(ms, 95), 'min': np.min}


def now() -> float:
    """Seconds by the clock; what was asked of a GPU is done before."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def device_name(device: Optional[str] = None) -> str:
    """Of the GPU, where the device is one or there is one; else ``'CPU'``."""
    device = torch.device(device or get_device())
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'


def statistics(values: np.ndarray) -> Dict[str, float]:
    """The ``STATISTICS`` of (N,) values."""
    return {name: float(of(values)) for name, of in STATISTICS.items()}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [[cell.rjust(width) if i else cell.ljust(width)
              for i, (cell, width) in enumerate(zip(row, widths))] for row in rows]
    lines.insert(1, ['-' * (width - bool(i)) + ':' * bool(i) for i, width in enumerate(widths)])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def processor() -> str:
    """The processor's name."""
    path = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.*)', path.read_text()) if path.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def machine() -> str:
    """Processor, its cores for this process, and the version of torch."""
    return f'{processor()}, {cores()} cores, torch {torch.__version__}'
