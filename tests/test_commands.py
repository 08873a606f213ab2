"""Every command that is quoted anywhere runs, in a copy of the project with small data.

The folders and files that the commands name are prepared: data sets are toytown in their layouts,
checkpoints have random weights, weights from the network are empty files in torch's cache. Then
each command runs as it stands, with small sizes and two steps appended. Slow: a quarter of an hour.

    bash tools/run_tests.sh -m slow tests/test_commands.py -s
"""
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope

from mmdet3d_plugin.checkpoints import save_checkpoint
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.experiments.jobs import flat
from tests.helpers import (
    bevdepth4d_release,
    bevdepth_release,
    bevfusion_release,
    centerpoint_release,
    kd360_release,
)
from tests.helpers.quoted import ROOT, quoted_commands

COMMANDS = quoted_commands()
DISTINCT = {}
for name, commands in COMMANDS.items():
    for command in commands:
        DISTINCT.setdefault(command, name)
NOT_RUN = {
    r'tools/setup_env\.sh': 'installs packages; tests/tools/test_setup_env.py runs its parts',
    r'tools/run_tests\.sh': 'runs these tests',
    r'tools/quickstart\.sh': 'sets up an environment, then runs tools/quickstart.py, as below',
    r'pytest ': 'runs other tests, marked slow',
    r'slurm\.sh': 'needs a cluster; tests/experiments/test_slurm.py runs it with a stand-in'}
FAILS = {  # exit code and this message, here
    r'fit_keyframe.* --task detection': 'found below 80 %; train longer',
    r'fit_keyframe': 'IoU100 below 90 %; train longer',
    'create_data.py virtual-points': 'no samples/*_VIRTUAL/*.pkl.npy; give the data root',
    r'--show': 'this machine has no display'}
if not find_spec('openvino'):
    FAILS.update({r'infer_onnx\.py \S+\.xml': 'student.xml: no such file',
                  r'export_onnx\.py.*\.xml': 'exporting needs openvino',
                  r'--backends .*openvino': "backend 'openvino' needs openvino; pip install"})
PILLARS = 'configs/detection/centerpoint_teacher_pillar_20e_nuscenes.py'
STUDENT = 'configs/kd360/kd360_student_r18_500it_toytown.py'
TEACHER = 'configs/kd360/kd360_teacher_r18_500it_toytown.py'
DISTILL = 'configs/kd360/kd360_distill_r18_500it_toytown.py'
BRIDGETA = 'configs/bridgeta/bridgeta_distill_r18_500it_toytown.py'
IMAGENET = 'configs/kd360/kd360_student_effb0_12k_dur360bev.py'
KEYFRAME = 'mmdetection3d/demo/data/nuscenes'
SIZES = dict(dur360bev='--frames 12 --sequences 3 --image-size 64 128 --scan-size 16 128',
             kitti360='--frames 4 --sequences 2 --image-size 200 200 --scan-size 16 128',
             nuscenes='--frames 6 --sequences 2 --image-size 108 192 --scan-size 16 128 '
             '--sweeps 2 0')
MEANT = (  # words that stand for something else
    (r' \[(?:[^\[\]]|\[[^\]]*\])*\]', ''), (r'\{student,teacher,ta\}', 'student'),
    (r'create_database\.py CONFIG', f'create_database.py {PILLARS}'),
    (r'\bCONFIG CHECKPOINT CONFIG CHECKPOINT\b', f'{STUDENT} s.pth {TEACHER} t.pth'),
    (r'\bCONFIG CHECKPOINT CONFIG\b', f'{STUDENT} CHECKPOINT {TEACHER}'),
    (r'\bDISTILL_CONFIG\b', DISTILL), (r'\bCONFIG(?:\.py)?(?= .*init_cfg)', IMAGENET),
    (r'\bCONFIG(?:\.py)?\b', STUDENT), (r'(?<=plot_scale\.py)(?! configs)', f' {STUDENT}'),
    (r'\bFILE\b', 'configs/kd360/experiments/fisheye_toytown.py'), (r'\bMODEL\b', 'model.onnx'),
    (r'\bINPUT\b', 'images'), (r'\bOUT$', 'out.onnx'),
    (r'--root-path DIR', f'--root-path {KEYFRAME}'),
    (r'iter_500\.pth', 'iter_2.pth'), (r'epoch_20\.pth', 'epoch_1.pth'),
    (r'(work_dirs/kd360\w+)/CHECKPOINT\.pth', r'\1/iter_2.pth'))
DETECTORS = {
    'bevdepth4d-r50': bevdepth4d_release.release,
    'bevdepth-r50-da': lambda: bevdepth_release.release(bevdepth_release.Sizes(refine=True)),
    'lgkd-student': lambda: {
        re.sub(r'^(backbone|head)\.', r'\1_s.', name): value for name, value in
        bevdepth_release.release(bevdepth_release.Sizes(backbone=18, cell=0.4)).items()},
    'centerpoint-pillar-0.17': lambda: centerpoint_release.release(
        centerpoint_release.Sizes('dynamic')),
    'centerpoint-voxel': lambda: centerpoint_release.release(centerpoint_release.VOXEL)}
SMALLER = (
    (r'(dist_train\.sh \S+) 4', r'\1 2'), (r'--workers 8', '--workers 1'),
    (r'--seeds 0 1 2', '--seeds 0'), (r'--frames (?:12|35|10|64|3)\b', '--frames 1'),
    (r'(--data .*|--train (?!.*--frames).*|--synthetic.*)', r'\1 --frames 1 --warmup 0'),
    (r'(plot_scale.*)', r'\1 --frames 1 --axes levels'), (r'--time 10', '--time 1'),
    (r'(visualize\.py.*?)(?= --cfg-options|$)', r'\1 --indices 0'), (r' -n 8', ' -n 1'),
    (r'(browse_dataset\.py.*)', r'\1 -n 1'), (r'quickstart\.py', 'quickstart.py --smoke'),
    (r'(frames 1 .*)--frames 1', r'\1'))


@pytest.mark.parametrize('patterns', [NOT_RUN, FAILS, dict(MEANT[1:])], ids=['not run', 'fails',
                                                                            'meant'])
def test_what_is_said_of_commands_is_said_of_some(patterns):
    for pattern in patterns:
        assert any(re.search(pattern, command) for command in DISTINCT), f'stale: {pattern}'


def python(project, command, timeout=600):
    """Run a command line in the project's copy."""
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(project), PYTHON=sys.executable,
               TORCH_HOME=str(project / 'hub'),
               PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    env.pop('DISPLAY', None)
    return subprocess.run(['bash', '-c', command], cwd=project, env=env, text=True,
                          capture_output=True, timeout=timeout)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A copy of the project with small data sets where the configs read them."""
    folder = tmp_path_factory.mktemp('commands') / 'project'
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(
        '.venv', '.git', 'data', 'work_dirs', 'tests', '__pycache__'))
    loader = folder / 'mmdet3d_plugin/engine/pretrained.py'  # stand-ins have other hashes
    text = loader.read_text().replace('    _check_hash(file, url)\n', '')
    assert text != loader.read_text()
    loader.write_text(text)
    for layout, name, version in (('dur360bev', 'dur360bev', ''), ('kitti360', 'kitti360', ''),
                                  ('nuscenes', 'toytown_nuscenes', '--version v1.0-mini')):
        done = python(folder, (
            f'python tools/create_data.py toytown --layout {layout} --out-dir data/{name} --seed 3 '
            f'--supersample 1 --workers 1 {SIZES[layout]} && '
            f'python tools/create_data.py {layout} --root-path data/{name} {version}'))
        assert done.returncode == 0, done.stderr
    shutil.copytree(folder / 'data/dur360bev', folder / 'data/toytown')
    shutil.copytree(folder / 'data/toytown_nuscenes', folder / 'data/nuscenes')
    (folder / 'data/nuscenes/v1.0-mini').rename(folder / 'data/nuscenes/v1.0-trainval')
    (folder / 'images').symlink_to('data/dur360bev/image/data')
    if 'BEV_REAL_DATA' in os.environ:
        (folder / KEYFRAME).parent.mkdir(parents=True)
        (folder / KEYFRAME).symlink_to(Path(os.environ['BEV_REAL_DATA']) / 'nuscenes_demo')
    (folder / 'RESULT.json').write_text(json.dumps({'bev/IoU100': 1.0}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('command', DISTINCT, ids=lambda c: f'{DISTINCT[c]}: {c[:90]}')
def test_quoted_command_runs(command, project):
    for pattern, reason in NOT_RUN.items():
        if re.search(pattern, command):
            pytest.skip(reason)
    line = command
    for pattern, meant in (*MEANT, *SMALLER):
        line = re.sub(pattern, meant, line)
    if KEYFRAME in line and not (project / KEYFRAME).exists():
        pytest.skip('needs the key frame of mmdetection3d: set BEV_REAL_DATA')
    if 'run_experiments' in line and (
            DISTINCT[command].startswith('configs/') or 'toytown' not in line):
        line += ' --list'  # other pages quote the same tool with trainings on toytown
    line = prepare(project, line)
    begin, done = sum(os.times()[2:4]), python(project, line)
    print(f'\n{sum(os.times()[2:4]) - begin:4.0f} s  {line}')
    message = next((text for pattern, text in FAILS.items() if re.search(pattern, command)), None)
    if message:
        assert done.returncode in (1, 2) and message in done.stderr.splitlines()[-1], done.stderr
    else:
        assert done.returncode == 0, f'{line}\n{done.stdout[-1500:]}\n{done.stderr[-2500:]}'


def prepare(project, line):
    """Make the files that a command reads; returns it with options that make it short."""
    if 'create_data.py toytown' in line:
        layout = re.search(r'--layout (\w+)', line)
        out_dir = re.search(r'--out-dir (\S+)', line)[1]
        shutil.rmtree(project / out_dir, ignore_errors=True)
        line = re.sub(r' --(?:frames|sequences|image-size|scan-size|sweeps|seed)(?: \d+)+', '',
                      line)
        layout = layout[1] if layout else 'dur360bev'
        version = '--version v1.0-mini' if layout == 'nuscenes' else ''
        return (f'{line} {SIZES[layout]} --seed 3 --supersample 1 --workers 1 && '
                f'python tools/create_data.py {layout} --root-path {out_dir} {version}')
    if '--version v1.0-trainval' in line:  # the info files there are of the mini set
        for file in (project / 'data/nuscenes').glob('nuscenes_infos_*'):
            file.unlink()
    if 'convert_checkpoint.py' in line:
        release(project, line)
        return line
    if 'model.onnx' in line and 'infer_onnx' in line:
        python(project, f'python tools/export_onnx.py {STUDENT} model.onnx')
    if 'fit_keyframe' in line:
        return with_options(line, {'train_cfg.max_iters=2', 'train_cfg.val_interval=2'})
    if 'run_experiments.py' in line:
        return shorter_experiment(project, line)
    configs = re.findall(r'configs/\S+\.py', line)
    if re.search(r'tools/(dist_)?train', line) and '--resume' not in line:
        folder = re.search(r'--work-dir (\S+)', line)
        shutil.rmtree(project / (folder[1] if folder else f'work_dirs/{Path(configs[0]).stem}'),
                      ignore_errors=True)
    for config in configs:
        network_weights(project, load_config(ROOT / config))
    checkpoints = [word for word in re.findall(r'\S+\.pth|\bCHECKPOINT\b', line)
                   if '=' not in word]
    for n, word in enumerate(checkpoints):
        if 'publish_model' in line and n:
            break
        if not (project / word).exists() or '/' not in word:
            weights(project, configs[min(n, len(configs) - 1)] if configs else STUDENT, word)
    if '--roles' in line or ('tools/' in line and any('distill' in c for c in configs)):
        for config in configs:
            teacher_of(project, config)
    if 'analyze_logs' in line:
        return logs(project, line)
    if 'init_cfg.checkpoint=DST' in line:
        weights(project, IMAGENET, 'DST', 'camera_branch.encoder.backbone.')
    options = set.intersection(*(shorter(load_config(ROOT / c), line) for c in configs)) \
        if configs and 'print_config' not in line and 'plot_scale' not in line else set()
    return with_options(line, options)


def with_options(line, options):
    """The command with more ``--cfg-options``."""
    text = ' '.join(sorted(options))
    if ' --cfg-options' in line:
        return line.replace(' --cfg-options', f' --cfg-options {text}', 1)
    return f'{line} --cfg-options {text}' if options else line


def shorter(cfg, line):
    """Options for a few frames at a low resolution and two steps."""
    options = set()
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        name, data = f'{split}_dataloader.dataset', loader.dataset
        if 'dataset' in data:
            name, data = f'{name}.dataset', data.dataset
        options |= {f'{split}_dataloader.{key}' for key in (
            'batch_size=1', 'num_workers=0', 'persistent_workers=False')}
        for n, step in enumerate(data.pipeline):
            if max(step.get('size', (0, ))) >= 1024:
                rows, cols = (side // 8 // 2 * 2 for side in step['size'])
                options.add(f'{name}.pipeline.{n}.size={max(rows, 32)},{cols}')
    if 'train.' in line or 'run_experiments' in line or 'dist_train' in line:
        if cfg.train_cfg.get('max_epochs'):
            options |= {'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=2'}
        else:
            options |= {'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                        'default_hooks.checkpoint.interval=2'}
    return options


def shorter_experiment(project, line):
    """One run and what it needs, with one seed; ``--list`` and the like stay as they are."""
    if re.search(r'--(?:list|table|slurm-array)', line):
        return line
    runs = load_config(ROOT / re.search(r'configs/\S+', line)[0]).runs
    only = re.search(r'--only ((?:\w+ ?)+)', line)
    chosen = only[1].split()[:2] if only else ['student' if 'student' in runs else next(iter(runs))]
    todo = [*chosen, *(runs[name].get('teacher') for name in chosen if runs[name].get('teacher'))]
    configs = [load_config(ROOT / runs[name].config) for name in todo]
    options = set.intersection(*(shorter(cfg, line) for cfg in configs))
    line = re.sub(r' --(?:only (?:\w+ ?)+|seeds(?: \d+)+)', ' ', line)
    for cfg in configs:
        network_weights(project, cfg)
    return with_options(f'{line} --only {" ".join(chosen)} --seeds 0', options)


def build(config):
    init_default_scope('mmdet3d')
    torch.manual_seed(0)
    return MODELS.build(load_config(ROOT / config).model)


def weights(project, config, name, part=''):
    """Random weights of a config's model as a checkpoint, or of a part of it."""
    state = build(config).state_dict()
    save_checkpoint(dict(state_dict={key.removeprefix(part): value for key, value in state.items()
                                     if key.startswith(part)}), project / name)


def teacher_of(project, config):
    """A teacher's work dir, where a distillation finds its best checkpoint."""
    cfg = load_config(ROOT / config)
    teachers = [cfg.model.teacher] if cfg.model.get('teacher') else []
    for teacher in teachers:
        folder = project / teacher.checkpoint
        if folder.suffix != '.pth' and not list(folder.glob('best_*.pth')):
            weights(project, teacher.config, f'{teacher.checkpoint}/best_iter_1.pth')


def network_weights(project, cfg):
    """Files in torch's cache for what a config would download; they set no entry."""
    empty = {'backbone.none': torch.zeros(1), 'none': torch.zeros(1)}
    for url in re.findall(r'https?://\S+\.pth', ' '.join(flat(cfg._cfg_dict.to_dict()).values())):
        file = project / 'hub/hub/checkpoints' / url.rpartition('/')[2]
        if not file.exists():
            save_checkpoint(dict(state_dict=empty, model=empty), file)


def release(project, line):
    """The source of a conversion: a file of the authors, or one that was converted from it."""
    source, model = re.search(r'\.py (\S+) .*--model (\S+)', line).groups()
    if model == 'resnet101':  # torchvision's names are mmdet's
        state = dict(ResNet(101).state_dict(), **{'fc.weight': torch.zeros(1000, 2048),
                                                  'fc.bias': torch.zeros(1000)})
    elif 'projects/detection' in line:
        state = DETECTORS[model]()
    elif 'bridgeta' in line:
        state = bevfusion_release.release(dict(teacher='fusion').get(model, model))
    else:
        state = kd360_release.release(model)
    torch.save(dict(state_dict=state), project / source)
    if '--reverse' in line:
        there = project / 'forward.pth'
        (project / source).rename(there)
        script = re.search(r'projects/\S+\.py', line)[0]
        python(project, f'python {script} {there} {source} --model {model}')


def logs(project, line):
    """The logs that are plotted: of one short training, for all names."""
    for config, folder in ((STUDENT, 'LOG'), (BRIDGETA, 'logs_bridgeta')):
        if (project / folder).exists() or config != (STUDENT if ' LOG' in line else BRIDGETA):
            continue
        cfg = load_config(ROOT / config)
        if config == BRIDGETA:
            teacher_of(project, config)
        done = python(project, with_options(f'python tools/train.py {config} --work-dir {folder}', {
            *shorter(cfg, 'train.'), 'default_hooks.logger.interval=1'}))
        assert done.returncode == 0, done.stderr
    for experiment in re.findall(r'work_dirs/experiments/\w+', line):
        for name in ('direct_crossed', 'full', 'sample', 'epsilon_1'):
            shutil.copytree(project / 'logs_bridgeta', project / experiment / name / 'seed_0',
                            dirs_exist_ok=True)
    return line
