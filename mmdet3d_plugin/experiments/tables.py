"""The table of an experiment, as text, as numbers and as a plot."""
from pathlib import Path
from statistics import mean, stdev
from typing import List, Mapping, Sequence

from ..checkpoints import atomic_write
from ..errors import UserError
from .experiment import Experiment, Training, read_metrics
from .jobs import write_json, write_text


def collect(experiment: Experiment, trainings: Sequence[Training]) -> List[dict]:
    """One row per run: its cells and, by metric, the values by seed of what is finished.

    The paper's other rows follow, without values.
    """
    rows = []
    for name in [name for name in experiment.runs if any(t.name == name for t in trainings)]:
        run = experiment.runs[name]
        results = {t.seed: _metrics(t, experiment.metrics) for t in trainings
                   if t.name == name and t.status() == 'finished'}
        rows.append(dict(
            name=name, columns=run.get('columns') or {}, config=run['config'],
            values={metric: {seed: values[metric] for seed, values in results.items()
                             if metric in values} for metric in experiment.metrics},
            paper=dict(zip(experiment.metrics, run.get('paper') or ()))))
    rows += [dict(name=name, columns={}, values={metric: {} for metric in experiment.metrics},
                  paper=dict(zip(experiment.metrics, figures)))
             for name, figures in experiment.others.items()]
    base = next((row for row in rows if row['name'] == experiment.baseline), None)
    for row in rows:
        if base and row is not base:
            row['gain'] = {metric: {seed: value - base['values'][metric][seed]
                                    for seed, value in values.items()
                                    if seed in base['values'][metric]}
                           for metric, values in row['values'].items()}
    return rows


def _metrics(training: Training, names: Sequence[str]) -> Mapping[str, float]:
    """The metrics of a finished training; what the file asks for since then is in its logs."""
    metrics = dict(training.result['metrics'])
    for name in names:
        if name not in metrics:
            try:
                metrics |= read_metrics(training.folder, [name])
            except UserError as error:
                print(f'{training}: {error}; the table has – for it')
    return metrics


def spread(values: Mapping[int, float], sign: str = '') -> str:
    """Mean and, of several seeds, standard deviation (n - 1)."""
    values = list(values.values())
    if not values:
        return '–'
    deviation = f' ± {stdev(values):.2f}' if len(values) > 1 else ''
    return f'{mean(values):{sign}.2f}{deviation}'


def markdown(experiment: Experiment, rows: Sequence[dict], command: str) -> str:
    """The table as text."""
    columns = list(dict.fromkeys(key for row in rows for key in row['columns']))
    measured = [f'{metric.split("/")[-1]}' for metric in experiment.metrics]
    header = ['run', *columns, 'seeds', *measured]
    with_gain = any('gain' in row for row in rows)
    if with_gain:
        header.append(f'{measured[0]} − {experiment.baseline}')
    with_paper = any(row['paper'] for row in rows)
    if with_paper:
        header.append(f'paper: {" / ".join(measured)}')
    lines = [header, ['---'] * len(header)]
    for row in rows:
        seeds = str(len(next(iter(row['values'].values())))) if 'config' in row else '–'
        cells = [row['name'], *(str(row['columns'].get(key, '')) for key in columns), seeds,
                 *(spread(row['values'][metric]) for metric in experiment.metrics)]
        if with_gain:
            gain = row.get('gain')
            cells.append(spread(gain[experiment.metrics[0]], '+') if gain else '')
        if with_paper:
            cells.append(' / '.join('–' if value is None else f'{value:g}'
                                    for value in row['paper'].values()) or '–')
        lines.append(cells)
    notes = ['Mean ± standard deviation over the seeds, last checkpoint.']
    if with_gain:
        notes.append(f'Differences to {experiment.baseline} are taken seed by seed.')
    if with_paper:
        notes.append(f'The paper\'s figures{experiment.paper and f" ({experiment.paper})"} are '
                     'the paper\'s, not ours.')
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    return f'# {experiment.title}\n\n{table}\n\n{" ".join(notes)}\n\n```bash\n{command}\n```\n'


def plot_table(experiment: Experiment, rows: Sequence[dict], path: Path) -> None:
    """One panel per metric: bars with deviations, the paper's figures as open diamonds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 3.6 * len(experiment.metrics), 1.2 + 0.32 * len(rows)))
    axes = figure.subplots(1, len(experiment.metrics), squeeze=False, sharey=True)
    for axis, metric in zip(axes[0], experiment.metrics):
        for place, row in enumerate(rows):
            values = list(row['values'][metric].values())
            if values:
                axis.barh(place, mean(values), color='#0f766e', height=0.6, alpha=0.8,
                          xerr=stdev(values) if len(values) > 1 else None,
                          error_kw=dict(ecolor='#1f2937', capsize=3))
            if row['paper'].get(metric) is not None:
                axis.plot(row['paper'][metric], place, 'D', mfc='none', mec='#d97706')
        axis.set(title=metric, xlim=(0, None))
        axis.set_yticks(range(len(rows)), [row['name'] for row in rows])
        axis.grid(axis='x', alpha=0.3)
    axes[0][0].invert_yaxis()
    if any(row['paper'] for row in rows):
        axes[0][0].plot([], [], 'D', mfc='none', mec='#d97706',
                        label=f'the paper\'s{experiment.paper and f", {experiment.paper}"}')
        figure.legend(loc='lower right', fontsize='small', frameon=False)
    figure.suptitle(experiment.title)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    with atomic_write(path) as file:
        figure.savefig(file, format='png', dpi=110)


def write_table(experiment: Experiment, trainings: Sequence[Training], work_dir: Path,
                command: str) -> None:
    """Write and print the table of what is finished.

    Args:
        experiment: what it says of the runs.
        trainings: of the runs.
        work_dir: folder of ``table.md``, ``table.json`` and ``table.png``.
        command: that makes the table.
    """
    rows = collect(experiment, trainings)
    text = markdown(experiment, rows, command)
    write_text(work_dir / 'table.md', text)
    write_json(work_dir / 'table.json', dict(
        title=experiment.title, metrics=experiment.metrics, rows=rows, command=command))
    plot_table(experiment, rows, work_dir / 'table.png')
    print(f'\n{text}\nwrote {work_dir.absolute()}/table.md, table.json and table.png')
