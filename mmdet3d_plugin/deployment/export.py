"""The export of a student: convert, compare with torch, write, and where wanted test and time."""
import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet3d.registry import DATASETS, METRICS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoints import file_sha256
from ..errors import UserError
from ..geometry import BEVGrid, CameraRig
from ..geometry.warping import motion
from ..locking import locked
from ..models.heads import BEVHead
from ..structures import fields
from ..visualization import draw
from . import exporting, packaging
from .deployed import DeployedStudent
from .preprocessing import recipe_of

SUFFIX = dict(onnx='.onnx', openvino='.xml')
TOLERANCE = 1e-3
Arrays = Mapping[str, np.ndarray]


@dataclass
class Options:
    """How to export.

    Attributes:
        runtime: ``'onnx'`` or ``'openvino'``.
        calibration: ``'static'`` (constant) or ``'input'``.
        info: file with the calibration; defaults to the test data's first frame.
        tasks: outputs; see :class:`DeployedStudent`.
        half: float16 weights and sums.
        int8: 8-bit convolutions and matrix products, calibrated on ``frames`` training frames.
        test: evaluate the network before and after on the test data.
        time: rounds to time; 0 = none.
        threads: of the CPU; 0 = all.
    """

    runtime: str = 'onnx'
    calibration: str = 'static'
    info: Optional[str] = None
    tasks: Optional[Sequence[str]] = None
    half: bool = False
    int8: bool = False
    frames: int = 32
    test: bool = False
    time: int = 0
    threads: int = 0

    @property
    def form(self) -> str:
        """The form of the network that the runtime computes fastest; see :mod:`.views`."""
        if self.calibration == 'input':
            return 'dynamic_calibration'
        if self.runtime == 'openvino':
            return 'embedding_bag'
        return 'grid_sample' if self.int8 else 'block_dense'

    @property
    def precision(self) -> str:
        return 'int8' if self.int8 else 'half' if self.half else 'float'


def export_student(inferencer, checkpoint: Optional[str], out: Path, options: Options) -> dict:
    """Write a student's network and, beside it, its description.

    Args:
        inferencer (BEVInferencer): Of the student or its distillation, on the CPU.
        checkpoint: Its file, which the description names; None = random weights.
        out: File to write.
        options: How.

    Returns:
        dict: The description.

    Raises:
        UserError: The model reads LiDAR, or the result differs from torch; nothing is written.
            Another process exports to the same file.
    """
    with locked(out.with_name(f'.{out.name}.lock'), f'another process exports to {out}; wait for '
                'it, or choose another file'):
        return _export(inferencer, checkpoint, out, options)


def _export(inferencer, checkpoint: Optional[str], out: Path, options: Options) -> dict:
    model, config = inferencer.model, inferencer.model.cfg
    student = getattr(model, 'student', model)
    if getattr(student, 'lidar_branch', None) is not None:
        raise UserError(f'{config.filename}: the model reads LiDAR; export its student')
    pipeline = inferencer.dataset_cfg.pipeline
    cameras, recipe, arrays = recipe_of(
        pipeline, packaging.first_frame(inferencer, options.info))
    rig = CameraRig.from_dicts([cameras])
    deployed = DeployedStudent(model, rig, options.tasks, options.form)
    values = packaging.calibration_of(rig) if options.calibration == 'input' else {}
    example = example_of(deployed, rig, values)
    exported = _convert(deployed, example, config, values, options)
    run = open_exported(exported, options.runtime, deployed.outputs, options.threads)
    apart = _difference(deployed, run, example)
    if options.precision == 'float' and not apart <= TOLERANCE:
        raise UserError(f'{out}: the exported network differs from torch by {apart:.2g}, more '
                        f'than {TOLERANCE}; nothing was written')
    if options.runtime == 'onnx':
        exporting.save_onnx(exported, out)
    else:
        exporting.save_openvino(exported, out, options.half)
    source = dict(
        config=Path(config.filename).name, checkpoint=checkpoint and Path(checkpoint).name,
        checkpoint_sha256=checkpoint and file_sha256(checkpoint), runtime=options.runtime,
        precision=options.precision, differs_from_torch=apart)
    if options.test:
        source['metrics'] = _metrics(inferencer, deployed, run, values)
    if options.time:
        source['milliseconds'] = measure({
            'model in torch': lambda: predict_in_torch(model, rig, example[0]),
            'made ready in torch': lambda: deployed(*example),
            'exported': lambda: run(_arrays(deployed, example))}, options.time)
    classes = classes_of(student.head, pipeline)
    arrays.update(drawing(student.grid, classes, deployed.head))
    source['camera_rows'] = draw.by_direction(
        {n: camera['lidar2cam'] for n, camera in enumerate(cameras)}, student.grid)
    description = packaging.describe(deployed, rig, student.grid, classes, recipe, source)
    packaging.save_description(out, description, arrays)
    return description


def example_of(deployed: DeployedStudent, rig: CameraRig, values: Arrays) -> Tuple[Tensor, ...]:
    """Inputs of the network: random images and past predictions, of a vehicle that stands."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, rig.lidar2cam.shape[1], 3, *rig.size), dtype=torch.uint8,
                           generator=generator)
    past = [torch.rand(shape, generator=generator) for shape in deployed.past.values()]
    if past:
        past[-1] = _motion(deployed, rig, [rig] * past[-1].shape[0])
    return images, *past, *map(torch.from_numpy, values.values())


def _motion(deployed: DeployedStudent, rig: CameraRig, past: Sequence[CameraRig]) -> Tensor:
    """The last input of past frames: (T - 1, 4, 4), or (T - 1, N, 4, 4)."""
    if 'motion' in deployed.past:
        return torch.cat([motion(rig, then) for then in past])
    return torch.cat([then.lidar2cam for then in past])


def _arrays(deployed: DeployedStudent, inputs: Sequence[Tensor]) -> Dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in zip(deployed.inputs, inputs)}


def _convert(deployed: DeployedStudent, example: Tuple[Tensor, ...], config, values: Arrays,
             options: Options):
    """The network for the runtime, in the precision asked for."""
    if options.runtime == 'openvino':
        return exporting.to_openvino(deployed, example)
    model = exporting.to_onnx(deployed, example)
    if options.half:
        return exporting.half_precision(model)
    if options.int8:
        return exporting.quantised(model, calibration_frames(
            config, options.frames, deployed, values))
    return model


@torch.no_grad()
def _difference(deployed: DeployedStudent, run: Callable, example: Tuple[Tensor, ...]) -> float:
    outs = run(_arrays(deployed, example))
    return max(float(np.abs(out - want.numpy()).max())
               for out, want in zip(outs, deployed(*example)))


def _metrics(inferencer, deployed: DeployedStudent, run: Callable,
             values: Arrays) -> Dict[str, dict]:
    """The test data's metrics of the network in torch and of the exported one."""
    config, fill = inferencer.model.cfg, deployed.head.fill

    def in_torch(feed):
        return deployed(*(torch.from_numpy(feed[name]) for name in deployed.inputs))

    def score(network):
        def predict(images, sample):
            outs = network(_feed(deployed, network, images, sample, values))
            decoded = {name: torch.as_tensor(out) for name, out in zip(deployed.tasks, outs)}
            return fill(decoded, [sample])[0]
        return evaluate(config, inferencer.dataset, predict)

    return dict(torch=score(in_torch), exported=score(run))


def _feed(deployed: DeployedStudent, network: Callable, images: np.ndarray,
          sample: Det3DDataSample, values: Arrays) -> Dict[str, np.ndarray]:
    """Inputs of the network for a packed frame; past images run through it on their own."""
    if not deployed.past:
        return dict(values, images=images)
    cameras = sample.metainfo[fields.CAMERAS]
    rig, *past = (CameraRig.from_dicts([fields.at_time(cameras, time)])
                  for time in range(fields.num_times(cameras)))
    alone = {name: np.zeros(shape, np.float32) for name, shape in deployed.past.items()}
    kept = [network(dict(values, **alone, images=images[:, time]))[len(deployed.tasks):]
            for time in range(1, images.shape[1])]
    states = [np.concatenate([np.asarray(frame[k]) for frame in kept])
              for k in range(len(kept[0]))]
    then = dict(zip(deployed.past, (*states, _motion(deployed, rig, past).numpy())))
    return dict(values, **then, images=images[:, 0])


def classes_of(head: BEVHead, pipeline: Sequence[Mapping]) -> Tuple[str, ...]:
    """A name for each channel of the output that is drawn; from the head, or from the data."""
    shown = next((output for output in head.outputs().values() if output.drawing), None)
    groups = next((step['classes'] for step in pipeline if step['type'] == 'RasterizeBEV'), ())
    names = head.class_names or tuple(
        group if isinstance(group, str) else '+'.join(map(str, group)) for group in groups)
    channels = shown.shape[0] if shown else 0
    return names if len(names) == channels else tuple(f'class {n}' for n in range(channels))


def drawing(grid: BEVGrid, classes: Sequence[str], head: BEVHead) -> Dict[str, np.ndarray]:
    """What images of predictions start from: colours, orientation, rings and the car."""
    is_map = any(output.drawing == 'map' for output in head.outputs().values())
    empty = np.zeros((1, *grid.shape))
    blank = draw.draw_map(grid, empty) if is_map else draw.draw_bev(grid, empty)
    colours = draw.map_colours(len(classes)) if is_map else [draw.TRUTH] * len(classes)
    return dict(cells_top_down=draw.cells_top_down(grid).astype(np.int16),
                background=blank, ground=np.array(draw.GROUND, np.uint8),
                colours=np.array(colours, np.uint8).reshape(-1, 3))


def calibration_frames(config, count: int, deployed: DeployedStudent, values: Arrays
                       ) -> List[dict]:
    """Inputs of the network, from the training data, loaded as the test data is."""
    train = config.train_dataloader.dataset
    data = copy.deepcopy(train.get('dataset', train))
    data.update(pipeline=config.test_dataloader.dataset.pipeline, test_mode=True)
    dataset = DATASETS.build(data)
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)

    def network(feed):
        return deployed(*(torch.from_numpy(feed[name]) for name in deployed.inputs))

    frames = []
    for i in tqdm(chosen, 'calibration frames', unit='frame'):
        packed = dataset[int(i)]
        frames.append(_feed(deployed, network, packed['inputs']['img'][None].numpy(),
                            packed['data_samples'], values))
    return frames


def open_exported(model, runtime: str, names: Sequence[str],
                  threads: int) -> Callable[[Arrays], List[np.ndarray]]:
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


def evaluate(config, dataset, predict: Callable) -> Dict[str, float]:
    """The metrics of the config's test data, of a function that fills a sample from images."""
    metric = METRICS.build(config.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    if hasattr(metric, 'prepare'):
        metric.prepare(dataset)
    for n in tqdm(range(len(dataset)), 'test frames', unit='frame'):
        packed = dataset[n]
        sample = packed['data_samples']
        sample = predict(packed['inputs']['img'][None].numpy(), sample)
        metric.process(packed, [sample.to_dict()])
    return {key: round(float(value), 4) for key, value in metric.evaluate(len(dataset)).items()}


@torch.no_grad()
def measure(runs: Mapping[str, Callable], rounds: int) -> Dict[str, dict]:
    """Median and least milliseconds of functions that alternate, after two rounds to warm up."""
    seconds = {name: [] for name in runs}
    for _ in tqdm(range(rounds + 2), 'rounds'):
        for name, function in runs.items():
            begin = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begin)
    return {name: dict(median=1000 * float(np.median(spent[2:])), min=1000 * min(spent[2:]))
            for name, spent in seconds.items()}


def predict_in_torch(model: nn.Module, rig: CameraRig, images: Tensor) -> None:
    """What the model does with a frame: normalise, run, predict; past images are the frame's."""
    preprocessor = model.data_preprocessor
    imgs = (images.float() - preprocessor.mean) / preprocessor.std
    student = getattr(model, 'student', model)
    past = getattr(student.camera_branch, 'num_past', 0)
    inputs = dict(imgs=imgs, rig=rig)
    if past:
        inputs.update(imgs=torch.stack([imgs] * (1 + past), 1), past_rigs=[rig] * past)
    samples = [Det3DDataSample(metainfo=dict(past_interval=1.0, classes=student.head.class_names))
               for _ in imgs]
    student(inputs, samples, mode='predict')
