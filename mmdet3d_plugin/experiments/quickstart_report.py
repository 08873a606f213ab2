"""The page that the quickstart ends with."""
import json
import platform
import re
from datetime import datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

from ..benchmark.tables import cores, processor
from ..structures import load_infos, read_image
from ..version import __version__
from ..visualization import report as html
from ..visualization.curves import read_curves
from .jobs import write_text
from .process import clock
from .stages import Stage

#: name -> (what it reads, training config, config at inference, colour)
STUDENT = 'configs/kd360/kd360_student_r18_500it_toytown.py'
TEACHER = 'configs/kd360/kd360_teacher_r18_500it_toytown.py'
DISTILLED = 'configs/kd360/kd360_distill_r18_500it_toytown.py'
MODELS = {
    'teacher': ('camera + LiDAR', TEACHER, TEACHER, '#2f5d9b'),
    'student': ('camera', STUDENT, STUDENT, '#d97706'),
    'distilled': ('camera', DISTILLED, STUDENT, '#0f766e'),
}
LABELS = dict(teacher='teacher', student='student alone', distilled='distilled student')
RANGES = (100, 50, 20)
SMOKE_WARNING = (
    'This was a smoke run of a few iterations on a handful of frames: it shows that everything '
    'works; its numbers mean nothing.')
WHAT_YOU_SEE = (
    'Top: the panorama that every model reads, stitched from the dual fisheye image, with the '
    'boxes of the ground truth. Its middle is straight ahead.',
    'Below: the LiDAR image (range, ambient light, intensity), which only the teacher reads; the '
    'same columns look into the same directions.',
    'Bottom: the street from above, 100 m wide, ahead is up. Green cells are vehicles that the '
    'model found, blue ones it missed, red ones are false alarms. In the ground truth: the boxes '
    'and the scan.',
    'The LiDAR gives the teacher exact distances. The students must guess them from one image; '
    'far and hidden vehicles are where they fail first, and where the distilled one should differ '
    'from the student alone.',
    'One run with one seed is one sample: projects/kd360_voxelbev/README.md has means and '
    'deviations over several seeds.')


def read_results(out: Path) -> dict:
    """What the stages measured: IoU, benchmark and curves by model."""
    iou, curves = {}, {}
    for name in MODELS:
        metrics = sorted((out / 'evaluation' / name).glob('*/*.json'))  # all of one checkpoint
        values = json.loads(metrics[-1].read_text())
        iou[name] = {side: values[f'bev/IoU{side}'] for side in RANGES}
        merged: Dict[str, Dict[float, float]] = {}
        for log in sorted((out / name).glob('*/vis_data/2*.json')):  # one for each start
            for key, points in read_curves(log).items():
                merged.setdefault(key, {}).update(points)
        curves[name] = {key: sorted(points.items()) for key, points in merged.items()}
    benchmark = json.loads((out / 'evaluation' / 'benchmark.json').read_text())
    return dict(iou=iou, curves=curves, benchmark=benchmark)


def verdict(iou: Dict[str, Dict[int, float]]) -> str:
    """The result in words, whatever it is."""
    teacher, student, distilled = (iou[name][RANGES[0]] for name in MODELS)
    gain = distilled - student
    text = (f'On the held-out sequences the teacher, which sees camera and LiDAR, reaches '
            f'{teacher:.1f} % IoU within 100 m. The camera-only student reaches {student:.1f} % '
            f'alone and {distilled:.1f} % with the teacher\'s help: ')
    if gain > 0:
        text += f'distillation adds {gain:.1f} points'
        text += (f', {100 * gain / (teacher - student):.0f} % of the way to the teacher.'
                 if teacher > student else ', although the teacher is no better than the student.')
    else:
        text += f'distillation did not help in this run ({gain:+.1f} points).'
    return text


def machine() -> List[Tuple[str, str]]:
    """Facts about the computer and the packages."""
    path = Path('/proc/meminfo')
    found = re.search(r'MemTotal: *(\d+)', path.read_text()) if path.is_file() else None
    memory = f', {int(found[1]) / 2**20:.1f} GB of memory' if found else ''
    packages = ('torch', 'mmcv', 'mmengine', 'mmdet', 'mmdet3d', 'numpy')
    return [
        ('processor', f'{processor()}, {cores()} cores for this run{memory}'),
        ('system', f'{platform.platform()}, Python {platform.python_version()}'),
        ('packages', f'mmdet3d_plugin {__version__}, '
                     + ', '.join(f'{name} {version(name)}' for name in packages))]


def charts_of(curves: Dict[str, dict]) -> Tuple[dict, dict]:
    """Charts for ``line_charts`` and the colours of their lines."""
    by_label = {LABELS[name]: curves[name] for name in MODELS}
    colours = {LABELS[name]: MODELS[name][3] for name in MODELS}
    shared = set.intersection(*(set(c) for c in by_label.values()))
    loss = next((key for key in sorted(shared) if key.startswith('loss_seg')), 'loss')
    terms = {f'distilled: {key}': points for key, points in curves['distilled'].items()
             if key.startswith('loss_') and key not in curves['student']}
    colours |= dict(zip(terms, ('#7c3aed', '#be185d', '#64748b', '#a16207', '#0891b2')))
    wanted = {f'training: {loss}': loss, 'training: distillation terms': None,
              'held-out: IoU within 100 m, %': 'bev/IoU100',
              'held-out: IoU within 50 m, %': 'bev/IoU50'}
    charts = {title: terms if key is None else {n: c.get(key, []) for n, c in by_label.items()}
              for title, key in wanted.items()}
    return {title: lines for title, lines in charts.items() if lines}, colours


def model_rows(stages: Mapping[str, Stage], iou: dict, benchmark: dict) -> List[List[str]]:
    """The table of results as HTML cells, one row for each model."""
    best = max(max(values.values()) for values in iou.values()) or 1
    rows = []
    for name, (sensors, _, _, colour) in MODELS.items():
        measured = benchmark['models'][name]
        bars = [html.bar(f'{iou[name][side]:.1f}', iou[name][side] / best, colour)
                for side in RANGES]
        rows.append([html.named(LABELS[name], colour), sensors, *bars,
                     f'{measured["parameters"]:,}', f'{measured["frames_per_second"]:.1f}',
                     clock(stages[name].begun['seconds'])])
    return rows


def facts_of(stages: Mapping[str, Stage], frames: dict, benchmark: dict,
             seed: str) -> List[Tuple[str, str]]:
    """What a reader needs to judge or repeat the run."""
    times = ', '.join(f'{name} {clock(stage.begun["seconds"])}' for name, stage in stages.items()
                      if name != 'report')
    peak = max(stage.begun['peak_kb'] for stage in stages.values()) / 2**20
    return [
        ('data', '; '.join(
            f'{plural(count, "frame")} of {plural(sequences, "sequence")} to {use}'
            for use, (count, sequences) in zip(('train', 'test'), frames.values()))),
        ('seed', f'{seed} (training)'), *machine(),
        ('device', f'{benchmark["device"]}, {plural(benchmark["threads"], "thread")}'),
        ('time of the steps', f'{times} (minutes:seconds)'),
        ('peak memory', f'{peak:.1f} GB in the largest process')]


def count_frames(data: Path) -> Dict[str, Tuple[int, int]]:
    """Frames and sequences of each split."""
    counts = {}
    for split in ('train', 'val'):
        frames = load_infos(str(data / f'dur360bev_infos_{split}.pkl'))['data_list']
        counts[split] = len(frames), len({frame['scene_token'] for frame in frames})
    return counts


def write_report(out: Path, stages: Mapping[str, Stage], smoke: bool = False) -> None:
    """Write ``report.html`` and print its table.

    Args:
        out: folder of the quickstart.
        stages: by name; what they took and their commands go into the report.
        smoke: whether this was a smoke run, whose numbers mean nothing.
    """
    results = read_results(out)
    iou, benchmark = results['iou'], results['benchmark']
    frames = count_frames(out / 'toytown')
    commands = [line for stage in stages.values() for line in stage.begun['commands']]
    seed = re.search(r'randomness\.seed=(\d+)', ' '.join(commands))[1]
    header = ['model', 'reads', *(f'IoU {side} m, %' for side in RANGES), 'parameters', 'frames/s',
              'training, min']
    notes = (
        f'IoU of vehicles over {plural(frames["val"][0], "held-out frame")} of '
        f'{plural(frames["val"][1], "sequence")} (none in training), in squares of 100, 50 and '
        f'20 m around the car. Weights of the last iteration. Frames per second: '
        f'{benchmark["device"]}, {plural(benchmark["threads"], "thread")}, batch 1, data loading '
        f'excluded, median of {plural(benchmark["frames"], "frame")} after {benchmark["warmup"]} '
        'to warm up. The distilled student is the same network as the student alone; a difference '
        'in their speed is noise of the measurement.')
    curves = html.figure(html.line_charts(*charts_of(results['curves'])),
                         'Losses are means over the last iterations before a point, each with the '
                         'weight that its model has learned for it. A learned weight adds the '
                         'logarithm of its variance, so that a loss may become negative; that is '
                         'not an error.')
    panels = [html.figure(read_image(str(path))[..., ::-1], alt=f'held-out frame {path.stem}')
              for path in sorted((out / 'images').glob('*.png'))]
    facts = [map(escape, fact) for fact in facts_of(stages, frames, benchmark, seed)]
    sections = [
        html.section(html.paragraphs(verdict(iou)), kind='lead'),
        html.section(html.table(model_rows(stages, iou, benchmark), header)
                     + html.paragraphs(notes, kind='soft'), 'Result'),
        html.section(curves, 'Training'),
        html.section(html.bullets(WHAT_YOU_SEE), 'What you see below'),
        html.section('\n'.join(panels), 'The same held-out frames for all three'),
        html.section(html.table(facts), 'This run'),
        html.section(html.listing(commands), 'The commands that made everything')]
    if smoke:
        sections.insert(0, html.section(html.paragraphs(SMOKE_WARNING), kind='lead warning'))
    subtitle = (f'quickstart report, {datetime.now():%Y-%m-%d %H:%M}, seed {seed}: '
                'a LiDAR + camera teacher trains a camera-only student')
    page = html.page('KD360-VoxelBEV on toytown', subtitle, sections)
    write_text(out / 'report.html', page)
    print_table(iou, benchmark)


def print_table(iou: dict, benchmark: dict) -> None:
    """The result for the terminal."""
    print(f'\n  {"":20s}' + ''.join(f'{f"IoU{side}":>9s}' for side in RANGES)
          + f'{"parameters":>13s}{"frames/s":>10s}')
    for name in MODELS:
        measured = benchmark['models'][name]
        print(f'  {LABELS[name]:20s}' + ''.join(f'{iou[name][side]:9.1f}' for side in RANGES)
              + f'{measured["parameters"]:13,d}{measured["frames_per_second"]:10.1f}')


def plural(count: int, word: str) -> str:
    """A count and what is counted."""
    return f'{count} {word}' if count == 1 else f'{count} {word}s'
