"""Export a student for inference without torch: to ONNX, or to OpenVINO.

    python tools/export_onnx.py CONFIG [CHECKPOINT.pth] OUT.onnx
    python tools/export_onnx.py CONFIG [CHECKPOINT.pth] OUT.xml --runtime openvino

A distillation's config or checkpoint gives its student. The network takes uint8 images and
normalises them itself; batch norms are folded into convolutions; the calibration is a constant
(--calibration static) or an input. ONNX has standard operators only. OUT.json (inputs, outputs,
grid, classes, preprocessing, versions) and OUT.npz (sampling maps from the camera's image to the
network's, background of drawings) beside it are all that tools/infer_onnx.py needs. The result is
run and compared with torch before it is written; --test evaluates both, --time times both.
"""
import argparse
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import numpy as np
import torch
from mmdet3d.registry import DATASETS, METRICS
from mmengine.structures import PixelData
from tqdm import tqdm

from mmdet3d_plugin.apis import BEVInferencer
from mmdet3d_plugin.deployment import DeployedStudent, exporting, packaging
from mmdet3d_plugin.deployment.preprocessing import recipe_of
from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import CfgOptions, run_tool
from mmdet3d_plugin.errors import UserError
from mmdet3d_plugin.geometry import CameraRig
from mmdet3d_plugin.models import BEVMapHead
from mmdet3d_plugin.visualization import draw

SUFFIX = dict(onnx='.onnx', openvino='.xml')
TOLERANCE = 1e-3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('paths', nargs='+', metavar='CONFIG [CHECKPOINT] OUT',
                        help='.py, and where given .pth (else random weights), and the file to '
                        'write, .onnx or .xml')
    parser.add_argument('--runtime', choices=tuple(SUFFIX), help="default: by OUT's ending")
    parser.add_argument('--calibration', choices=('static', 'input'), default='static',
                        help='of the cameras: constant (default), or inputs lidar2cam, lens, '
                        'img_aug')
    parser.add_argument('--info', metavar='FILE', help='info file or JSON with the calibration '
                        "(default: the test data's first frame)")
    parser.add_argument('--tasks', nargs='+', metavar='TASK', help='outputs (default: '
                        'segmentation, and all where the head groups instances)')
    parser.add_argument('--half', action='store_true', help='float16 weights and sums')
    parser.add_argument('--int8', action='store_true', help='8-bit convolutions and matrix '
                        'products, calibrated on frames')
    parser.add_argument('--frames', type=int, default=32,
                        help='training frames that --int8 calibrates on (default: 32)')
    parser.add_argument('--test', action='store_true',
                        help='evaluate the network before and after on the test data')
    parser.add_argument('--time', type=int, default=0, metavar='N', help='time N turns of the '
                        'model in torch, made ready in torch, and exported, in turn')
    parser.add_argument('--threads', type=int, default=0, help='of the CPU (default: all)')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={},
                        metavar='KEY=VALUE', help='override config values')
    args = parser.parse_args()
    if not 2 <= len(args.paths) <= 3:
        parser.error(f'expected CONFIG [CHECKPOINT] OUT, got {len(args.paths)} paths')
    args.config, *middle, out = args.paths
    args.checkpoint, args.out = middle[0] if middle else None, Path(out)
    args.runtime = args.runtime or ('openvino' if args.out.suffix == '.xml' else 'onnx')
    if args.out.suffix != SUFFIX[args.runtime]:
        parser.error(f'OUT {out}: expected a name that ends with {SUFFIX[args.runtime]}')
    if args.half and args.int8:
        parser.error('--half and --int8 exclude each other')
    if args.int8 and args.runtime != 'onnx':
        parser.error('--int8 writes ONNX; OpenVINO reads it')
    return args


def classes_of(head, pipeline) -> Tuple[str, ...]:
    """A name for each channel of the segmentation."""
    if isinstance(head, BEVMapHead):
        return head.classes
    groups = next((step['classes'] for step in pipeline if step['type'] == 'RasterizeBEV'), ())
    names = [group if isinstance(group, str) else '+'.join(map(str, group)) for group in groups]
    channels = head.segmentation[-1].out_channels if 'segmentation' in head.tasks else 0
    return tuple(names) if len(names) == channels else tuple(f'class {n}' for n in range(channels))


def drawing(grid, classes, is_map: bool) -> Dict[str, np.ndarray]:
    """What images of predictions start from: colours, orientation, rings and the car."""
    empty = np.zeros((1, *grid.shape))
    blank = draw.draw_map(grid, empty) if is_map else draw.draw_bev(grid, empty)
    colours = draw.map_colours(len(classes)) if is_map else [draw.TRUTH] * len(classes)
    return dict(cells_top_down=draw.cells_top_down(grid).astype(np.int16),
                background=blank, ground=np.array(draw.GROUND, np.uint8),
                colours=np.array(colours, np.uint8).reshape(-1, 3))


def calibration_frames(config, count: int, inputs: Dict[str, np.ndarray]) -> List[dict]:
    """Inputs of the network, from the training data, loaded as the test data is."""
    data = config.test_dataloader.dataset.copy()
    train = config.train_dataloader.dataset
    data.ann_file = train.get('dataset', train).ann_file
    dataset = DATASETS.build(data)
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return [dict(inputs, images=dataset[int(i)]['inputs']['img'][None].numpy())
            for i in tqdm(chosen, 'calibration frames', unit='frame')]


def opened(model, runtime: str, names,
           threads: int) -> Callable[[Dict[str, np.ndarray]], List[np.ndarray]]:
    """The exported network as a function of its inputs, of a batch of one."""
    if runtime == 'onnx':
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=['CPUExecutionProvider'])
        return lambda feed: session.run(list(names), feed)
    import openvino

    fixed = model.clone()
    fixed.reshape({'images': [1, *list(fixed.input('images').partial_shape)[1:]]})
    compiled = openvino.compile_model(fixed, 'CPU', {
        'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads,
        'PERFORMANCE_HINT': 'LATENCY'})

    def run(feed):
        results = compiled(feed)
        return [results[name] for name in names]

    return run


def evaluate(config, dataset, predict) -> Dict[str, float]:
    """The metrics of the config's test data, of a function from images to probabilities."""
    metric = METRICS.build(config.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    for n in tqdm(range(len(dataset)), 'test frames', unit='frame'):
        packed = dataset[n]
        sample = packed['data_samples']
        seg = predict(packed['inputs']['img'][None].numpy())
        sample.pred_bev = PixelData(seg=torch.from_numpy(np.asarray(seg)))
        metric.process(packed, [sample.to_dict()])
    return {key: round(float(value), 4) for key, value in metric.evaluate(len(dataset)).items()}


@torch.no_grad()
def measure(runs: Dict[str, Callable], turns: int) -> Dict[str, dict]:
    """Median and least milliseconds of functions that take turns, after two turns to warm up."""
    seconds = {name: [] for name in runs}
    for _ in tqdm(range(turns + 2), 'turns'):
        for name, function in runs.items():
            begin = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begin)
    return {name: dict(median=1000 * float(np.median(spent[2:])), min=1000 * min(spent[2:]))
            for name, spent in seconds.items()}


def predict_in_torch(model, rig, images) -> None:
    """What the model does with a frame: normalise, run, predict."""
    preprocessor = model.data_preprocessor
    imgs = (images.float() - preprocessor.mean) / preprocessor.std
    student = getattr(model, 'student', model)
    student.head.predict(student(dict(imgs=imgs, rig=rig), mode='tensor'))


def convert(args, deployed, example, config, feed):
    """The network in the form of the runtime, in the precision asked for."""
    if args.runtime == 'openvino':
        return exporting.to_openvino(deployed, example)
    model = exporting.to_onnx(deployed, example)
    if args.half:
        return exporting.half_precision(model)
    if args.int8:
        return exporting.quantised(model, calibration_frames(config, args.frames, feed))
    return model


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    config = load_config(args.config, args.cfg_options)
    inferencer = BEVInferencer(config, args.checkpoint, 'cpu')
    student = getattr(inferencer.model, 'student', inferencer.model)
    pipeline = inferencer.dataset_cfg.pipeline
    form = 'dynamic_calibration' if args.calibration == 'input' else (
        'embedding_bag' if args.runtime == 'openvino' else
        'grid_sample' if args.int8 else 'block_dense')
    if getattr(student, 'lidar_branch', None) is not None:
        raise UserError(f'{args.config}: the model reads LiDAR; export its student')
    cameras, recipe, arrays = recipe_of(pipeline, packaging.first_frame(inferencer, args.info))
    rig = CameraRig.from_dicts([cameras])
    deployed = DeployedStudent(inferencer.model, rig, args.tasks, form)

    values = packaging.calibration_of(rig) if args.calibration == 'input' else {}
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, len(cameras), 3, *rig.size), dtype=torch.uint8,
                           generator=generator)
    example = (images, *map(torch.from_numpy, values.values()))
    model = convert(args, deployed, example, config, values)
    with torch.no_grad():
        expected = deployed(*example)
    run = opened(model, args.runtime, deployed.outputs, args.threads)
    outs = run(dict(values, images=images.numpy()))
    apart = max(float(np.abs(out - want.numpy()).max()) for out, want in zip(outs, expected))
    exact = not (args.half or args.int8)
    if exact and not apart <= TOLERANCE:
        raise UserError(f'{args.out}: the exported network differs from torch by {apart:.2g}, more '
                        f'than {TOLERANCE}; nothing was written')

    if args.runtime == 'onnx':
        exporting.save_onnx(model, args.out)
    else:
        exporting.save_openvino(model, args.out, args.half)
    classes = classes_of(student.head, pipeline)
    source = dict(
        config=Path(args.config).name, checkpoint=args.checkpoint and Path(args.checkpoint).name,
        checkpoint_sha256=args.checkpoint and packaging.sha256(args.checkpoint),
        runtime=args.runtime, precision='int8' if args.int8 else 'half' if args.half else 'float',
        differs_from_torch=apart)
    if args.test:
        where = deployed.outputs.index('segmentation')
        source['metrics'] = dict(
            torch=evaluate(config, inferencer.dataset, lambda images: deployed(
                torch.from_numpy(images), *example[1:])[where][0]),
            exported=evaluate(config, inferencer.dataset, lambda images: run(
                dict(values, images=images))[where][0]))
        for name, metrics in source['metrics'].items():
            print(f'{name}: ' + ', '.join(f'{key} {value}' for key, value in metrics.items()))
    if args.time:
        source['milliseconds'] = measure({
            'model in torch': lambda: predict_in_torch(inferencer.model, rig, images),
            'made ready in torch': lambda: deployed(*example),
            'exported': lambda: run(dict(values, images=images.numpy()))}, args.time)
        for name, spent in source['milliseconds'].items():
            print(f'{name}: median {spent["median"]:.1f} ms, least {spent["min"]:.1f} ms')
    arrays.update(drawing(student.grid, classes, isinstance(student.head, BEVMapHead)))
    description = packaging.describe(deployed, rig, student.grid, classes, recipe, source)
    packaging.save_description(args.out, description, arrays)
    print(f'{args.out}: {", ".join(deployed.outputs)} of {len(cameras)} x {rig.size[0]}x'
          f'{rig.size[1]} images; differs from torch by {apart:.1g}')


if __name__ == '__main__':
    run_tool(main)
