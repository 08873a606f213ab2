"""Curves of trainings, from the logs that mmengine writes."""
import json
from collections import defaultdict
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Dict, List, Tuple

from ..checkpoints import atomic_write
from ..errors import UserError, did_you_mean, parse_errors

Curves = Dict[str, List[Tuple[float, float]]]
_NO_CURVES = {'epoch', 'iter', 'step', 'time', 'data_time', 'memory', 'eta'}


def find_log(path: Path) -> Path:
    """The log file itself, or of a work dir the one that goes to the highest step."""
    if path.is_file():
        return path
    found = sorted(path.glob('**/vis_data/2*.json'))
    if not found:
        raise UserError(f'log {path}: no vis_data/*.json there; give a log file or the work dir '
                        'of a training')
    steps = {log: max((points[-1][0] for points in read_curves(log).values()), default=-1)
             for log in found}
    return max(reversed(found), key=steps.get)


def read_curves(path: Path) -> Curves:
    """Curves by name, each a list of (step, value); an unfinished last line is left out."""
    curves, step = defaultdict(list), 0
    with parse_errors(f'log {path}: unreadable'):
        lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError(f'a {type(record).__name__}')
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                continue
            raise UserError(f'log {path}: line {number} is no JSON ({error})') from error
        if 'loss' in record:
            step = record.get('iter', record.get('step', step))
        for name, value in record.items():
            if name not in _NO_CURVES and isinstance(value, (int, float)):
                curves[name].append((step, value))
    return dict(curves)


def select_curves(runs: Dict[str, Curves], keys: List[str]) -> Dict[str, Curves]:
    """The curves that were asked for, where a run has them; the learning rate only if it was."""
    known = {name for curves in runs.values() for name in curves}
    for key in keys:
        if key not in known:
            raise UserError(f'--keys {key}: not in the logs{did_you_mean(key, known)}')
    chosen = keys or sorted(known - {'lr', 'base_lr'})
    return {run: {key: curves[key] for key in chosen if key in curves}
            for run, curves in runs.items()}


def log_names(logs: List[Path]) -> List[str]:
    """Short names that differ: the last parts of the paths."""
    parts = [(*log.parent.parts, log.name if log.is_dir() else log.stem) for log in logs]
    for count in range(1, max(map(len, parts))):
        names = ['/'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(log) for log in logs]


def table_of_curves(curves: Curves) -> str:
    """First, last, lowest and highest value of every curve."""
    lines = [f'{"":32s} {"points":>7s} {"first":>11s} {"last":>11s} {"lowest":>11s} '
             f'{"highest":>11s}']
    for name, points in curves.items():
        values = [value for _, value in points]
        lines.append(f'{name:32s} {len(values):7d} {values[0]:11.5g} {values[-1]:11.5g} '
                     f'{min(values):11.5g} {max(values):11.5g}')
    return '\n'.join(lines)


def smoothed(points: List[Tuple[float, float]], count: int) -> List[Tuple[float, float]]:
    """Each value as the mean of the last ``count``, of fewer where there are not yet so many."""
    return [(step, fmean(value for _, value in points[max(0, n - count):n]))
            for n, (step, _) in enumerate(points, 1)]


def plot_curves(runs: Dict[str, Curves], out: Path, smooth: int = 1, log: bool = False) -> None:
    """One panel per curve, one colour per run; behind a smoothed curve its values, faint."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 3.2 * rows), squeeze=False,
                                   layout='constrained')
    colours = [*pyplot.get_cmap('tab10').colors, *pyplot.get_cmap('Dark2').colors]
    for axis, name in zip(axes.flat, names):
        for (run, curves), colour in zip(runs.items(), cycle(colours)):
            points = curves.get(name, [])
            if smooth > 1 and points:
                axis.plot(*zip(*points), color=colour, linewidth=0.6, alpha=0.25)
            if points:
                axis.plot(*zip(*smoothed(points, smooth)), color=colour, label=run, linewidth=1.4,
                          marker='.' if len(points) < 30 else None)
        axis.set(title=name, xlabel='iteration')
        if log and axis.dataLim.ymin > 0:
            axis.set_yscale('log')
            axis.yaxis.set_major_formatter('{x:g}')
            axis.yaxis.set_minor_formatter('{x:g}')
        axis.grid(alpha=0.3, which='both')
    for axis in axes.flat[len(names):]:
        axis.axis('off')
    lines: Dict[str, object] = {}
    for axis in axes.flat:
        lines.update((line.get_label(), line) for line in axis.get_legend_handles_labels()[0])
    if len(runs) > 1:
        shown = [run for run in runs if run in lines]
        figure.legend([lines[run] for run in shown], shown, loc='outside lower center',
                      ncols=min(4, len(shown)), frameon=False)
    form = out.suffix.removeprefix('.').lower()
    if form not in figure.canvas.get_supported_filetypes():
        raise UserError(f'{out}: no such format of images; give a name that ends with .png, .pdf '
                        'or .svg')
    with atomic_write(out) as file:
        figure.savefig(file, format=form, dpi=110)
