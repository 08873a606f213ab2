"""Bird's-eye-view maps of images or of a video, without torch.

    python tools/infer_onnx.py MODEL.onnx INPUT OUT_DIR

MODEL is what tools/export_onnx.py wrote, .onnx or .xml, with MODEL.json and MODEL.npz beside it.
INPUT is an image, a video, or a folder of images; for networks of several cameras a folder with
one folder of images for each, whose names are in MODEL.json. OUT_DIR/bev/NAME.png is the map seen
from above, OUT_DIR/maps/NAME.npz (with --maps) the network's outputs, OUT_DIR/video.mp4 all frames
with their maps. Frames that are there are not computed again, so a run that was stopped goes on.

Needs numpy, OpenCV and onnxruntime or openvino.
"""
import argparse
import contextlib
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import cv2
import numpy as np

FORMAT = 2
IMAGES = ('.png', '.jpg', '.jpeg', '.bmp')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm')
Source = Tuple[str, Callable[[], List[np.ndarray]]]


class InputError(ValueError):
    """Something the user can repair; printed as one line."""


# -------------------------------------------------------------------------------------------- model
class Exported:
    """An exported network with its description.

    Args:
        path: ``.onnx`` or ``.xml``.
        threads: Of the CPU, 0 = all.
        precision: OpenVINO's inference precision, ``'f32'`` or ``'bf16'``.
    """

    def __init__(self, path: Path, threads: int = 0, precision: str = 'f32') -> None:
        if not path.is_file():
            raise InputError(f'model {path}: no such file; export one with tools/export_onnx.py')
        self.path = path
        self.meta = _read_meta(path)
        arrays = _beside(path, '.npz')
        try:
            with np.load(arrays) as stored:
                self.arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError) as error:
            raise InputError(f'{arrays}: unreadable ({error}); export the model again') from error
        self.names = list(self.meta['outputs'])
        self.size = tuple(self.meta['inputs']['images']['shape'][-2:])
        self.feed = {name: np.array(self.meta['calibration'][name], np.float32)
                     for name in self.meta['inputs'] if name != 'images'}
        load = _openvino if path.suffix == '.xml' else _onnxruntime
        try:
            self._run = load(self, threads, precision)
        except ImportError as error:
            raise InputError(f'model {path}: {error}; pip install {load.__name__[1:]}') from error
        except Exception as error:
            reason = ' '.join(str(error).split())[:160]
            raise InputError(f'model {path}: it is no model that runs here ({reason}); '
                             'export it again') from error

    def __call__(self, images: Sequence[np.ndarray]) -> Dict[str, np.ndarray]:
        """Predict from the (H, W, 3) RGB images of one frame; each output without its batch."""
        planes = np.stack([image.transpose(2, 0, 1) for image in images])[None]
        results = self._run(dict(self.feed, images=np.ascontiguousarray(planes)))
        return {name: out[0] for name, out in zip(self.names, results)}


def _read_meta(path: Path) -> dict:
    file = _beside(path, '.json')
    try:
        meta = json.loads(file.read_text())
        version = meta['format']
        for key in ('inputs', 'outputs', 'preprocessing', 'calibration', 'thresholds', 'sha256'):
            meta[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{file}: it describes no exported model ({type(error).__name__}: '
                         f'{error}); export the model again') from error
    if version != FORMAT:
        raise InputError(f'{file}: of format {version}, this program reads {FORMAT}; export the '
                         'model again')
    if hashlib.sha256(path.read_bytes()).hexdigest() != meta['sha256']:
        raise InputError(f'{file}: it describes another file than {path.name}; keep .json, .npz '
                         'and model of one export together')
    return meta


def _beside(path: Path, suffix: str) -> Path:
    file = path.with_name(path.name + suffix)
    if not file.is_file():
        raise InputError(f'{file}: missing; it belongs beside {path.name}, where '
                         'tools/export_onnx.py wrote it')
    return file


def _onnxruntime(exported, threads, precision):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers = [name for name in ('CUDAExecutionProvider', 'CPUExecutionProvider')
                 if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(str(exported.path), options, providers=providers)
    return lambda feed: session.run(exported.names, feed)


def _openvino(exported, threads, precision):
    import openvino

    core = openvino.Core()
    model = core.read_model(str(exported.path))
    model.reshape({'images': [1, *exported.meta['inputs']['images']['shape'][1:]]})
    compiled = core.compile_model(model, 'CPU', {
        'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': threads,
        'PERFORMANCE_HINT': 'LATENCY'})
    request = compiled.create_infer_request()

    def run(feed):
        results = request.infer(feed)
        return [results[name] for name in exported.names]

    return run


def calibrate(exported: Exported, file: Path) -> None:
    """Take the calibration of a JSON with ``lidar2cam``, ``lens`` or ``img_aug``, or all."""
    if not exported.feed:
        raise InputError(f'--calibration {file}: that of {exported.path} is a constant; export it '
                         'with --calibration input')
    try:
        given = json.loads(file.read_text(encoding='utf-8-sig'))
        values = {name: np.array(value, np.float32) for name, value in given.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f'--calibration {file}: {error}; expected a JSON with '
                         f'{", ".join(exported.feed)}') from error
    for name, value in values.items():
        if name not in exported.feed or value.shape != exported.feed[name].shape:
            shapes = ', '.join(f'{key} {old.shape}' for key, old in exported.feed.items())
            raise InputError(f'--calibration {file}: {name} of shape {value.shape}; expected '
                             f'{shapes}')
    exported.feed.update(values)


# ---------------------------------------------------------------------------------------- images
def load_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f'{path}: missing or no image')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def prepare(exported: Exported, images: Sequence[np.ndarray], name: str) -> List[np.ndarray]:
    """The network's images from the cameras', as the description's ``preprocessing`` says.

    A single image that has the network's size already is taken as it is.
    """
    steps, size = exported.meta['preprocessing'], exported.size
    sizes = {camera: tuple(wanted) for camera, wanted in steps['images'].items()}
    if len(images) == 1 and images[0].shape[:2] == size and (
            exported.meta['inputs']['images']['shape'][1] == 1):
        return list(images)
    for image, (camera, wanted) in zip(images, sizes.items()):
        if image.shape[:2] != wanted:
            found = f'{image.shape[1]}x{image.shape[0]}'
            raise InputError(f'{name}: wrong image size {found} of {camera}, the model was '
                             f'exported for {wanted[1]}x{wanted[0]}; export it with the '
                             'calibration of this camera (--info)')
    if steps['kind'] == 'remap':
        maps = exported.arrays['map_0'], exported.arrays['map_1']
        return [cv2.remap(images[0], *maps, cv2.INTER_NEAREST if steps['nearest'] else
                          cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)]
    if steps['kind'] == 'circles':
        return circles(images[0], *steps['rows'])
    if steps['kind'] == 'stitch':
        return [stitch(images, exported.arrays, steps['layers'])]
    return [cut(image, steps['resized'][camera], steps['corner'][camera], size, steps['filter'])
            for image, camera in zip(images, sizes)]


def circles(image: np.ndarray, top: int, bottom: int) -> List[np.ndarray]:
    """The front and the rear circle of a dual fisheye, upright, from row ``top`` to ``bottom``."""
    side = image.shape[1] // 2
    front = cv2.rotate(image[:side, side:], cv2.ROTATE_90_COUNTERCLOCKWISE)
    rear = cv2.rotate(image[:side, :side], cv2.ROTATE_90_CLOCKWISE)
    return [front[top:bottom], rear[top:bottom]]


def stitch(images: Sequence[np.ndarray], arrays: Dict[str, np.ndarray],
           layers: int) -> np.ndarray:
    """Blend images into one panorama; the first layer is the panorama, the others blend in."""
    height = max(len(image) for image in images)
    canvas = np.concatenate([np.pad(p, ((0, height - len(p)), (0, 0), (0, 0))) for p in images],
                            1)
    maps = [(arrays[f'layer_{n}_map_0'], arrays[f'layer_{n}_map_1']) for n in range(layers)]
    out = cv2.remap(canvas, *maps[0], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    flat = out.reshape(-1, 3)
    for n in range(1, layers):
        index, share = arrays[f'layer_{n}_index'], arrays[f'layer_{n}_alpha']
        over = cv2.remap(canvas, *maps[n], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        under = flat[index].astype(np.float32)
        flat[index] = under + (over.reshape(-1, 3)[:len(index)] - under) * share + .5
    return out


def cut(image: np.ndarray, resized: Sequence[int], corner: Sequence[int], size: Tuple[int, int],
        resampling: str) -> np.ndarray:
    """Resize to (width, height), then cut (H, W) from a corner on; black outside."""
    if resampling == 'pil':
        try:
            from PIL import Image
        except ImportError as error:
            raise InputError('this model resizes images as Pillow does; pip install pillow'
                             ) from error
        image = np.array(Image.fromarray(image).resize(resized, Image.BICUBIC))
    elif tuple(resized) != image.shape[1::-1]:
        image = cv2.resize(image, tuple(resized), interpolation=cv2.INTER_AREA)
    shift = np.float64([[1, 0, -corner[0]], [0, 1, -corner[1]]])
    return cv2.warpAffine(image, shift, size[::-1], flags=cv2.INTER_NEAREST)


# ------------------------------------------------------------------------------------------ frames
def frames_of(path: Path, cameras: Sequence[str]) -> Tuple[int, Iterator[Source]]:
    """Number of frames (0 = unknown), and their names with functions that read the images."""
    if not path.exists():
        raise InputError(f'input {path}: no such file or folder')
    if path.is_dir():
        files = _files_by_camera(path, cameras)
        return len(files), ((paths[0].stem, lambda paths=paths: list(map(load_image, paths)))
                            for paths in files)
    if len(cameras) > 1:
        raise InputError(f'input {path}: the model reads {len(cameras)} cameras; give a folder '
                         f'with the folders {", ".join(cameras)}')
    if path.suffix.lower() in IMAGES:
        return 1, iter([(path.stem, lambda: [load_image(path)])])
    video = cv2.VideoCapture(str(path))
    if path.suffix.lower() not in VIDEOS or not video.isOpened():
        raise InputError(f'input {path}: no image ({" ".join(IMAGES)}) and no video '
                         f'({" ".join(VIDEOS)}) that OpenCV reads')
    return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))), _frames_of_video(video)


def _files_by_camera(path: Path, cameras: Sequence[str]) -> List[Tuple[Path, ...]]:
    folders = [path] if len(cameras) == 1 else [path / camera for camera in cameras]
    if len(cameras) == 1 and not _images_in(path) and (path / cameras[0]).is_dir():
        folders = [path / cameras[0]]
    files = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f'input {path}: it has no folder {folder.name}; the model reads '
                             f'{", ".join(cameras)}, a folder of images each')
        files.append(_images_in(folder))
        if not files[-1] or len(files[-1]) != len(files[0]):
            raise InputError(f'input {folder}: {len(files[-1])} images ({" ".join(IMAGES)}), '
                             f'expected {len(files[0]) or "some"}, as many as of every camera')
    return list(zip(*files))


def _images_in(folder: Path) -> List[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES and
                  not file.name.startswith('.'))


def _frames_of_video(video) -> Iterator[Source]:
    number = 0
    while True:
        found, image = video.read()
        if not found:
            return
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        yield f'{number:06d}', lambda rgb=rgb: [rgb]
        number += 1


# ----------------------------------------------------------------------------------------- drawing
def draw_map(segmentation: np.ndarray, arrays: Dict[str, np.ndarray],
             thresholds: Sequence[float]) -> np.ndarray:
    """The (K, R, C) probabilities seen from above, later classes on top; (H, W, 3) uint8 RGB."""
    rows, cols = arrays['cells_top_down']
    background, ground = arrays['background'], arrays['ground']
    cells = np.broadcast_to(ground, (*rows.shape, 3)).copy()
    for channel, limit, colour in zip(segmentation, thresholds, arrays['colours']):
        cells[channel[rows, cols] >= limit] = colour
    image = cv2.resize(cells, background.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    drawn = (background != ground).any(-1)
    image[drawn] = background[drawn]
    return image


def beside(images: Sequence[np.ndarray], bev: np.ndarray, width: int = 960) -> np.ndarray:
    """The network's images, in rows of up to three, left of the map."""
    in_row = min(3, len(images))
    scale = width / in_row / images[0].shape[1]
    small = [cv2.resize(p, (width // in_row, round(p.shape[0] * scale)),
                        interpolation=cv2.INTER_AREA) for p in images]
    rows = [np.concatenate(small[n:n + in_row], 1) for n in range(0, len(small), in_row)
            if n + in_row <= len(small)]
    left = np.concatenate(rows)
    height = max(len(left), len(bev))
    return np.concatenate([np.pad(part, (((height - len(part)) // 2, height - len(part) - (
        height - len(part)) // 2), (0, part.shape[1] % 2), (0, 0))) for part in (left, bev)], 1)


# ----------------------------------------------------------------------------------------- results
@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path that takes its name when it is complete."""
    temporary = path.with_name(f'.tmp.{path.name}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f'{path}: cannot write: {error.strerror or error}; make room there, or '
                         'choose another folder, and run the same command again') from error
    finally:
        temporary.unlink(missing_ok=True)


def check_run_dir(out_dir: Path, exported: Exported, thresholds: Sequence[float]) -> None:
    """Note whose results a folder holds, so that a stopped run goes on with its own only."""
    calibration = {name: values.tolist() for name, values in exported.feed.items()}
    mine = dict(model=exported.meta['sha256'], thresholds=list(thresholds), **calibration)
    file = out_dir / 'run.json'
    if file.is_file():
        try:
            same = json.loads(file.read_text()) == mine
        except ValueError:
            same = False
        if not same:
            raise InputError(f'{out_dir}: it holds the results of another model, threshold or '
                             'calibration; choose another folder, or delete it')
    with whole(file) as temporary:
        temporary.write_text(json.dumps(mine))


def progress(done: int, total: int, begin: float, last: bool = False) -> None:
    """A line on stderr: frames done, and frames a second."""
    speed = done / max(time.monotonic() - begin, 1e-9)
    if last or sys.stderr.isatty():
        of = f'/{total}' if total else ''
        print(f'\r{done}{of} frames, {speed:.1f} a second', end='\n' if last else '',
              file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> None:
    exported = Exported(args.model, args.threads, args.precision)
    if args.calibration:
        calibrate(exported, args.calibration)
    thresholds = args.threshold or exported.meta['thresholds']
    if len(thresholds) == 1:
        thresholds = thresholds * len(exported.meta['thresholds'])
    if len(thresholds) != len(exported.meta['thresholds']):
        raise InputError(f'--threshold: {len(thresholds)} values for the classes '
                         f'{", ".join(exported.meta["classes"])}; give one, or one for each')
    if 'segmentation' not in exported.names:
        raise InputError(f'model {args.model}: it has no segmentation to draw, but '
                         f'{", ".join(exported.names)}; export it with --tasks segmentation')
    total, frames = frames_of(args.input, list(exported.meta['preprocessing']['images']))
    check_run_dir(args.out_dir, exported, thresholds)
    begin, done, writer = time.monotonic(), 0, None
    with whole(args.out_dir / 'video.mp4') as video:
        partial = video.with_suffix('.part.mp4')
        try:
            for name, read in frames:
                images = prepare(exported, read(), name)
                bev = predict(exported, images, name, args, thresholds)
                image = beside(images, bev)
                if writer is None:
                    writer = cv2.VideoWriter(str(partial), cv2.VideoWriter_fourcc(*'mp4v'),
                                             args.fps, image.shape[1::-1])
                writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                done += 1
                progress(done, total, begin)
            if writer is None:
                raise InputError(f'input {args.input}: no frames')
            writer.release()
            os.replace(partial, video)
        finally:
            partial.unlink(missing_ok=True)
    progress(done, total, begin, last=True)
    print(f'{args.out_dir}/bev, {args.out_dir}/video.mp4')


def predict(exported, images, name, args, thresholds) -> np.ndarray:
    """The map's image; computed and written unless it is there."""
    file, maps = args.out_dir / 'bev' / f'{name}.png', args.out_dir / 'maps' / f'{name}.npz'
    if file.is_file() and (maps.is_file() or not args.maps):
        return load_image(file)
    outs = exported(images)
    bev = draw_map(outs['segmentation'], exported.arrays, thresholds)
    if args.maps:
        with whole(maps) as temporary, open(temporary, 'wb') as opened:
            np.savez_compressed(opened, **outs)
    with whole(file) as temporary:
        encoded = cv2.imencode('.png', cv2.cvtColor(bev, cv2.COLOR_RGB2BGR))[1]
        temporary.write_bytes(encoded.tobytes())
    return bev


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('model', type=Path, help='.onnx or .xml of tools/export_onnx.py')
    parser.add_argument('input', type=Path, help='image, video, or folder')
    parser.add_argument('out_dir', type=Path, help='folder of the results')
    parser.add_argument('--calibration', type=Path, metavar='FILE', help='JSON with lidar2cam, '
                        "lens, img_aug, for models that take them (default: the export's)")
    parser.add_argument('--threshold', nargs='+', type=float, metavar='P',
                        help="of the classes, one or one for each (default: the model's)")
    parser.add_argument('--maps', action='store_true', help="keep the network's outputs, too")
    parser.add_argument('--fps', type=float, default=10, help='of the video (default: 10)')
    parser.add_argument('--threads', type=int, default=0, help='of the CPU (default: all)')
    parser.add_argument('--precision', choices=('f32', 'bf16'), default='f32',
                        help='of OpenVINO on CPUs that have bfloat16 (default: f32)')
    try:
        run(parser.parse_args())
    except InputError as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted; run the same command again to go on', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    main()
