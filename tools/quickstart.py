"""The main job on toytown: write a world, train teacher, student and distilled student, compare.

    python tools/quickstart.py [--out-dir DIR] [--seed N] [--smoke] [--keep]

Every step is an ordinary command of this project and is printed as it could be typed. The result
is DIR/report.html. A second start skips what is finished and resumes what is not; a step whose
settings or configs have changed is made again, with everything that depends on it.
"""
import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import os
import pickle
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[1]

# Sizes; batches are the configs'. Trainings take 400 of the configs' 500 steps, so that the whole
# stays below a quarter of an hour. Seconds are expected ones on two cores.
WORLD = ('--frames 300 --sequences 60 --seed 0 --image-size 256 512 --scan-size 64 512 '
         '--supersample 2')
TRAINING: Dict[str, object] = {
    'default_hooks.checkpoint.interval': 50, 'train_cfg.max_iters': 400,
    'train_cfg.val_interval': 100, 'param_scheduler.0.total_steps': 401}
SECONDS = dict(world=90, convert=6, teacher=210, student=155, distilled=240, evaluate=57,
               report=16)
BENCHMARK = '--frames 20 --warmup 3'
PANELS = 4

SMOKE_WORLD = ('--frames 6 --sequences 3 --seed 0 --image-size 64 128 --scan-size 16 128 '
               '--supersample 1')
SMOKE_TRAINING: Dict[str, object] = {
    'default_hooks.checkpoint.interval': 2, 'default_hooks.logger.interval': 1,
    'train_cfg.max_iters': 4, 'train_cfg.val_interval': 2, 'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0, 'val_dataloader.persistent_workers': False}
SMOKE_BENCHMARK = '--frames 3 --warmup 1'
SMOKE_SECONDS = dict(world=2, convert=5, teacher=8, student=7, distilled=9, evaluate=24, report=12)

#: name -> (what it reads, training config, config at inference, colour)
STUDENT = 'configs/kd360/kd360_student_r18_toytown.py'
TEACHER = 'configs/kd360/kd360_teacher_r18_toytown.py'
MODELS = {
    'teacher': ('camera + LiDAR', TEACHER, TEACHER, '#2f5d9b'),
    'student': ('camera', STUDENT, STUDENT, '#d97706'),
    'distilled': ('camera', 'configs/kd360/kd360_distill_r18_toytown.py', STUDENT, '#0f766e'),
}
LABELS = dict(teacher='teacher', student='student alone', distilled='distilled student')
RANGES = (100, 50, 20)
VEHICLES = ('car', 'bus', 'truck')


class Failure(Exception):
    """What stops the quickstart, in one line."""


@dataclass(frozen=True)
class Stage:
    """A step of the job.

    Attributes:
        name: of its stamp and log.
        title: for people.
        commands: arguments of Python; ``{teacher}`` stands for that model's last checkpoint.
        proof: file below the out dir that exists when it is finished.
        folder: below the out dir; removed before the step is made again with other settings.
        needs: stages whose settings are part of this one's.
        configs: config files whose content is part of the settings.
    """

    name: str
    title: str
    commands: Tuple[Tuple[str, ...], ...]
    proof: str
    folder: str = ''
    needs: Tuple[str, ...] = ()
    configs: Tuple[str, ...] = ()


def make_stages(out: Path, smoke: bool, seed: int) -> List[Stage]:
    """The seven steps."""
    data, workers = out / 'toytown', str(len(os.sched_getaffinity(0)))
    world = (SMOKE_WORLD if smoke else WORLD).split()
    training = {'randomness.seed': seed, **(SMOKE_TRAINING if smoke else TRAINING)}

    def roots(*splits: str) -> List[str]:
        return [f'{split}_dataloader.dataset.data_root={data}' for split in splits]

    def train(name: str, *options: str) -> Tuple[str, ...]:
        return ('tools/train.py', MODELS[name][1], '--work-dir', str(out / name), '--resume',
                '--cfg-options', *roots('train', 'val'), *options,
                *(f'{key}={value}' for key, value in training.items()))

    pairs = [word for name, (_, _, config, _) in MODELS.items() for word in (config, f'{{{name}}}')]
    evaluate = [('tools/test.py', config, f'{{{name}}}', '--work-dir',
                 str(out / 'evaluation' / name), '--cfg-options', *roots('test'))
                for name, (_, _, config, _) in MODELS.items()]
    benchmark = ('tools/benchmark.py', *pairs, '--names', *MODELS, '--out',
                 str(out / 'evaluation' / 'benchmark.json'),
                 *(SMOKE_BENCHMARK if smoke else BENCHMARK).split(), '--cfg-options',
                 *roots('test'))
    images = ('tools/visualize.py', *pairs, '--names', *MODELS, '--out-dir',
                str(out / 'images'), '--indices', '{indices}', '--cfg-options', *roots('test'))
    return [
        Stage('world', 'write toytown, a synthetic world',
              (('tools/create_data.py', 'toytown', '--layout', 'dur360bev', '--out-dir', str(data),
                *world, '--workers', workers), ), 'toytown/metadata/toytown.json', 'toytown'),
        Stage('convert', 'convert it, as the real data set is converted',
              (('tools/create_data.py', 'dur360bev', '--root-path', str(data), '--workers',
                workers), ), 'toytown/dur360bev_infos_val.pkl', needs=('world', )),
        Stage('teacher', 'train the teacher (camera + LiDAR)', (train('teacher'), ),
              'teacher/last_checkpoint', 'teacher', ('convert', ), (TEACHER, )),
        Stage('student', 'train the student alone (camera)', (train('student'), ),
              'student/last_checkpoint', 'student', ('convert', ), (STUDENT, )),
        Stage('distilled', 'train the student with the teacher (camera)',
              (train('distilled', 'model.teacher.checkpoint={teacher}'), ),
              'distilled/last_checkpoint', 'distilled', ('teacher', ), (MODELS['distilled'][1], )),
        Stage('evaluate', 'evaluate the three on the held-out sequences',
              (*evaluate, benchmark), 'evaluation/benchmark.json', 'evaluation',
              ('teacher', 'student', 'distilled'), (TEACHER, STUDENT)),
        Stage('report', 'draw the images and write the report', (images, ), 'report.html',
              'images', ('evaluate', )),
    ]


# ------------------------------------------------------------------------------ running and stamps
class Quickstart:
    """Runs stages; remembers in ``DIR/.stages`` which are finished, with which settings.

    Args:
        out: where everything goes; relative to the repository or absolute.
        stages: to run, in order.
        seconds: expected duration of each.
        keep: stop instead of removing results of other settings.
    """

    def __init__(self, out: Path, stages: List[Stage], seconds: Dict[str, int], keep: bool):
        self.out, self.stages, self.seconds, self.keep = out, stages, seconds, keep
        self.settings: Dict[str, str] = {}
        for stage in stages:
            content = [stage.commands, [self.settings[name] for name in stage.needs],
                       [Config.fromfile(ROOT / path, import_custom_modules=False).to_dict()
                        for path in stage.configs]]
            text = json.dumps(content, default=str, sort_keys=True)
            self.settings[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.begin, self.lock = time.monotonic(), None

    def stamp(self, stage: Stage) -> dict:
        """What is known of a stage's earlier runs; empty if there were none."""
        path = self.out / '.stages' / f'{stage.name}.json'
        return json.loads(path.read_text()) if path.is_file() else {}

    def finished(self, stage: Stage) -> bool:
        """Whether nothing has to be done."""
        stamp = self.stamp(stage)
        return bool(stamp.get('finished') and stamp['settings'] == self.settings[stage.name]
                    and (self.out / stage.proof).is_file())

    def log(self, stage: Stage) -> Path:
        return self.out / 'logs' / f'{self.stages.index(stage) + 1}_{stage.name}.log'

    def run(self) -> None:
        """Run what is not finished."""
        for number, stage in enumerate(self.stages, 1):
            head = f'[{number}/{len(self.stages)}] {stage.title}'
            if self.finished(stage):
                print(f'{head}: finished before ({clock(self.stamp(stage)["seconds"])})')
                continue
            left = clock(self.remaining(stage))
            print(f'\n{head}   elapsed {clock(time.monotonic() - self.begin)}, about {left} left',
                  flush=True)
            self._run_stage(stage)
        print(f'\nfinished in {clock(time.monotonic() - self.begin)}; open in a browser:\n'
              f'{(self.out / "report.html").resolve()}')

    def remaining(self, current: Stage, seconds: Optional[float] = None) -> float:
        """Expected seconds to the end, at this machine's speed so far.

        Args:
            current: the running stage.
            seconds: what is left of it, if known.
        """
        known = [(self.stamp(s)['seconds'], self.seconds[s.name]) for s in self.stages
                 if self.finished(s)]
        speed = sum(k[0] for k in known) / sum(k[1] for k in known) if known else 1
        todo = sum(self.seconds[s.name] for s in self.stages
                   if s is not current and not self.finished(s))
        own = speed * self.seconds[current.name] if seconds is None else seconds
        return own + speed * todo

    def _run_stage(self, stage: Stage) -> None:
        stamp = self._prepare(stage)
        begin, before = time.monotonic(), stamp['seconds']
        try:
            for command in self._resolve(stage):
                line = shlex.join(['python', *command])
                stamp['commands'] = [c for c in stamp['commands'] if c != line] + [line]
                print(f'$ {line}', flush=True)
                stamp['peak_kb'] = max(stamp['peak_kb'], self._run_command(stage, command))
            if stage.name == 'report':
                write_report(self)
            stamp['finished'] = True
        finally:
            stamp['seconds'] = before + time.monotonic() - begin
            self._write(stage, stamp)

    def _prepare(self, stage: Stage) -> dict:
        """The stamp of a stage that begins; results of other settings are removed."""
        stamp, folder = self.stamp(stage), self.out / stage.folder
        if stamp.get('settings') != self.settings[stage.name] or stamp.get('finished'):
            if stage.folder and folder.exists() and any(folder.iterdir()):
                if not stamp:
                    raise Failure(f'{folder} exists and is not of a quickstart; remove it, or '
                                  'choose another --out-dir')
                if self.keep:
                    raise Failure(f'{folder} was made with other settings or configs and --keep is '
                                  'given; choose another --out-dir, or start without --keep')
                print(f'removing {folder}, which was made with other settings or configs')
                shutil.rmtree(folder)
            stamp = dict(settings=self.settings[stage.name], seconds=0.0, peak_kb=0, commands=[])
            self.log(stage).unlink(missing_ok=True)
        self._write(stage, stamp)
        return stamp

    def _write(self, stage: Stage, stamp: dict) -> None:
        path = self.out / '.stages' / f'{stage.name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix('.tmp')
        part.write_text(json.dumps(stamp, indent=1))
        part.replace(path)

    def _resolve(self, stage: Stage) -> Iterator[List[str]]:
        """The stage's commands with checkpoints and frames filled in."""
        for command in stage.commands:
            words = []
            for word in command:
                if word == '{indices}':
                    words += [str(i) for i in choose_frames(self.out / 'toytown', PANELS)]
                    continue
                for name in MODELS:
                    if f'{{{name}}}' in word:
                        word = word.replace(f'{{{name}}}', str(last_checkpoint(self.out / name)))
                words.append(word)
            yield words

    def _run_command(self, stage: Stage, command: List[str]) -> int:
        """Run one command into the log and show its progress; returns its peak memory in kB."""
        log = self.log(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, 'a', encoding='utf-8') as file:
            file.write(f'$ {shlex.join(["python", *command])}\n')
            file.flush()
            process = subprocess.Popen(
                [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                cwd=ROOT, env={**os.environ, 'PYTHONUNBUFFERED': '1'},
                pass_fds=(self.lock, ) if self.lock is not None else ())
            try:
                output = io.TextIOWrapper(process.stdout, 'utf-8', 'replace', newline='')
                for line in output:  # ends with \n, or with \r in a progress bar
                    file.write(line.replace('\r', '\n'))
                    file.flush()
                    self._show(stage, command[0], line)
            except BaseException:
                process.terminate()
                raise
            finally:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
        if code := process.returncode:
            how = f'was killed (signal {-code}; 9 may mean: out of memory)' if code < 0 else \
                f'failed (exit code {code}): {reason(log)}'
            raise Failure(f'to {stage.title} {how} -- whole log: {log}; '
                          'the same command continues here')
        return usage.ru_maxrss

    def _show(self, stage: Stage, tool: str, line: str) -> None:
        """Print what tells a person about progress."""
        text, bar = line.rstrip('\r\n'), line.endswith('\r')
        if tool == 'tools/create_data.py':
            if text and (not bar or sys.stdout.isatty()):
                print(f'  {text}', end='\r' if bar else '\n', flush=True)
        elif tool == 'tools/train.py' and (step := re.search(r'Iter\(train\) *(\[[^]]*\])', text)):
            loss = re.search(r' loss: (\S+)', text)
            eta = re.search(r'eta: (?:(\d+) days?, )?(\d+):(\d+):(\d+)', text)
            left = ''
            if eta:
                days, hours, minutes, seconds = (int(n or 0) for n in eta.groups())
                own = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
                left = f'   {clock(own)} left of this, {clock(self.remaining(stage, own))} of all'
            print(f'  {step[1]} loss {loss[1] if loss else "?"}{left}', flush=True)
        elif found := re.search(r'Iter\((?:val|test)\).*?(bev/IoU.*?)(?=  data_time|$)', text):
            print(f'  held-out: {found[1]}', flush=True)
        elif re.search(r'\d parameters .*|^\S+\.png$', text):
            print(f'  {text}', flush=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the out dir; commands inherit the lock, so an orphaned training counts too."""
        self.out.mkdir(parents=True, exist_ok=True)
        with open(self.out / '.lock', 'w') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Failure(f'another quickstart, or a training that it started, still runs in '
                              f'{self.out}; wait for it, or choose another --out-dir') from None
            self.lock = file.fileno()
            yield


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes}:{rest:02d}'


def plural(count: int, word: str) -> str:
    return f'{count} {word}' if count == 1 else f'{count} {word}s'


def reason(log: Path) -> str:
    """The line of a log that tells why a command failed."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r'\berror: |^\w*(Error|Interrupt)\b', line)]
    return (errors or lines or ['no output'])[-1][:400]


def last_checkpoint(work_dir: Path) -> Path:
    """The file that a finished training wrote last.

    The last and not the best: the held-out sequences would otherwise choose what they measure.
    """
    return work_dir / Path((work_dir / 'last_checkpoint').read_text().strip()).name


def choose_frames(data: Path, count: int) -> List[int]:
    """Held-out frames for the images: from evenly spaced sequences, those with most vehicles."""
    infos = pickle.loads((data / 'dur360bev_infos_val.pkl').read_bytes())
    labels = {infos['metainfo']['categories'][name] for name in VEHICLES}
    best: Dict[str, Tuple[int, int]] = {}
    for index, frame in enumerate(infos['data_list']):
        vehicles = sum(i['bbox_label_3d'] in labels for i in frame['instances'])
        best[frame['scene_token']] = max(best.get(frame['scene_token'], (-1, 0)),
                                         (vehicles, -index))
    indices = [-index for _, index in best.values()]
    return sorted({indices[n * len(indices) // count] for n in range(count)})


# --------------------------------------------------------------------------------------- the report
def read_results(job: Quickstart) -> dict:
    """What the stages measured: IoU, benchmark and curves by model."""
    from analyze_logs import read_curves

    iou, curves = {}, {}
    for name in MODELS:
        metrics = max((job.out / 'evaluation' / name).glob('*/*.json'),
                      key=lambda path: path.stat().st_mtime)
        values = json.loads(metrics.read_text())
        iou[name] = {side: values[f'bev/IoU{side}'] for side in RANGES}
        merged: Dict[str, Dict[float, float]] = {}
        for log in sorted((job.out / name).glob('*/vis_data/2*.json')):  # one for each start
            for key, points in read_curves(log).items():
                merged.setdefault(key, {}).update(points)
        curves[name] = {key: sorted(points.items()) for key, points in merged.items()}
    benchmark = json.loads((job.out / 'evaluation' / 'benchmark.json').read_text())
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
    cpu, memory = platform.processor() or platform.machine(), 0
    with contextlib.suppress(OSError, AttributeError):
        text = Path('/proc/cpuinfo').read_text()
        cpu = re.search(r'model name\s*: (.*)', text)[1]
        memory = int(re.search(r'MemTotal: *(\d+)', Path('/proc/meminfo').read_text())[1]) / 2**20
    packages = ('torch', 'mmcv', 'mmengine', 'mmdet', 'mmdet3d', 'numpy')
    from mmdet3d_plugin.version import __version__
    return [
        ('processor', f'{cpu}, {len(os.sched_getaffinity(0))} cores for this run, '
                      f'{memory:.1f} GB of memory'),
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


def model_rows(job: Quickstart, iou: dict, benchmark: dict) -> List[List[str]]:
    """The table of results as HTML cells, one row for each model."""
    from mmdet3d_plugin.visualization import report as html

    stamps = {stage.name: job.stamp(stage) for stage in job.stages}
    best = max(max(values.values()) for values in iou.values()) or 1
    rows = []
    for name, (sensors, _, _, colour) in MODELS.items():
        measured = benchmark['models'][name]
        bars = [html.bar(f'{iou[name][side]:.1f}', iou[name][side] / best, colour)
                for side in RANGES]
        rows.append([html.named(LABELS[name], colour), sensors, *bars,
                     f'{measured["parameters"]:,}', f'{measured["frames_per_second"]:.1f}',
                     clock(stamps[name]['seconds'])])
    return rows


def facts_of(job: Quickstart, frames: dict, benchmark: dict, seed: str) -> List[Tuple[str, str]]:
    """What a reader needs to judge or repeat the run."""
    stamps = {stage.name: job.stamp(stage) for stage in job.stages}
    times = ', '.join(f'{name} {clock(stamp["seconds"])}' for name, stamp in stamps.items()
                      if name != 'report')
    peak = max(stamp['peak_kb'] for stamp in stamps.values()) / 2**20
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
        frames = pickle.loads((data / f'dur360bev_infos_{split}.pkl').read_bytes())['data_list']
        counts[split] = len(frames), len({frame['scene_token'] for frame in frames})
    return counts


def write_report(job: Quickstart) -> None:
    """Write ``DIR/report.html`` and print its table."""
    from mmdet3d_plugin.visualization import report as html

    results = read_results(job)
    iou, benchmark = results['iou'], results['benchmark']
    frames = count_frames(job.out / 'toytown')
    commands = [line for stage in job.stages for line in job.stamp(stage).get('commands', [])]
    seed = re.search(r'randomness\.seed=(\d+)', ' '.join(commands))[1]
    smoke = 'train_cfg.max_iters=' in ' '.join(commands)
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
                         'weight that its model has learned for it.')
    panels = [html.figure(_read_image(path), alt=f'held-out frame {path.stem}')
              for path in sorted((job.out / 'images').glob('*.png'))]
    facts = [map(escape, fact) for fact in facts_of(job, frames, benchmark, seed)]
    sections = [
        html.section(html.paragraphs(verdict(iou)), kind='lead'),
        html.section(html.table(model_rows(job, iou, benchmark), header)
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
    (job.out / 'report.tmp').write_text(page, encoding='utf-8')
    (job.out / 'report.tmp').replace(job.out / 'report.html')
    print_table(iou, benchmark)


def print_table(iou: dict, benchmark: dict) -> None:
    """The result for the terminal."""
    print(f'\n  {"":20s}' + ''.join(f'{f"IoU{side}":>9s}' for side in RANGES)
          + f'{"parameters":>13s}{"frames/s":>10s}')
    for name in MODELS:
        measured = benchmark['models'][name]
        print(f'  {LABELS[name]:20s}' + ''.join(f'{iou[name][side]:9.1f}' for side in RANGES)
              + f'{measured["parameters"]:13,d}{measured["frames_per_second"]:10.1f}')


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


def _read_image(path: Path):
    import cv2
    return cv2.imread(str(path))[..., ::-1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out-dir', type=Path, default=ROOT / 'work_dirs' / 'quickstart',
                        help='default: work_dirs/quickstart')
    parser.add_argument('--seed', type=int, default=0, help='of the trainings (default: 0)')
    parser.add_argument('--smoke', action='store_true',
                        help='a few iterations on a handful of frames: does everything run?')
    parser.add_argument('--keep', action='store_true',
                        help='stop instead of removing results of other settings')
    args = parser.parse_args()
    args.out_dir = args.out_dir.resolve()
    if args.out_dir.is_relative_to(ROOT):  # short commands
        args.out_dir = args.out_dir.relative_to(ROOT)
    if re.search(r'[,=\[\](){}]', str(args.out_dir)):
        parser.error(f'--out-dir {args.out_dir}: a path with one of , = [ ] ( ) {{ }} cannot be '
                     'passed on in --cfg-options; choose another')
    os.chdir(ROOT)
    return args


def main() -> None:
    args = parse_args()
    job = Quickstart(args.out_dir, make_stages(args.out_dir, args.smoke, args.seed),
                     SMOKE_SECONDS if args.smoke else SECONDS, args.keep)
    with job.locked():
        job.run()


if __name__ == '__main__':
    try:
        main()
    except Failure as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted; the same command continues here')
