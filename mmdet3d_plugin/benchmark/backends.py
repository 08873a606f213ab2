"""The backends in which one model can run, behind one interface, to be compared."""
import copy
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from ..deployment import DeployedStudent
from ..deployment.exporting import need, save_openvino, to_onnx, to_openvino
from ..errors import UserError
from .official_baseline import OfficialBaseline

_DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16)
BACKENDS = ('eager', 'official', 'deployed', 'onnxruntime', 'openvino')
SUFFIXES = ('compiled', *_DTYPES)
_PACKAGES = dict(onnxruntime=('onnx', 'onnxscript', 'onnxruntime'), openvino=('openvino', ))


class Eager:
    """The model itself, or the official baseline with its weights.

    ``preprocess`` (packed frames to what the network takes), ``run`` (the network) and
    ``postprocess`` (its outputs to predictions) are the three steps of every backend.

    Args:
        model (nn.Module): In eval mode; it is copied where it is changed.
        dtype (torch.dtype, optional): Of autocast.
        official (bool): The official data flow; see :class:`.OfficialBaseline`.
    """

    def __init__(self, model: nn.Module, dtype=None, official: bool = False):
        self.preprocessor, self.dtype = model.data_preprocessor, dtype
        self.network = OfficialBaseline(model) if official else getattr(model, 'student', model)

    def compile(self, batch: dict) -> 'Eager':
        """Compile image encoder, BEV encoder and head of a copy; see :func:`_compile`."""
        self.network = copy.deepcopy(self.network)
        parts = [getattr(self.network, name, None) for name in ('bev_encoder', 'head')]
        branch = getattr(self.network, 'camera_branch', self.network)
        return _compile(self, [branch.encoder, *filter(None, parts)], batch)

    def preprocess(self, batch: dict) -> dict:
        return self.preprocessor(batch, False)

    def run(self, data: dict) -> Dict[str, Tensor]:
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype is not None):
            return self.network(**data, mode='tensor')

    def postprocess(self, outs: Dict[str, Tensor]) -> Any:
        samples = [Det3DDataSample() for _ in next(iter(outs.values()))]
        return self.network.head.predict(outs, samples)

    def decode(self, outs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """The outputs as a deployed network gives them, for comparisons."""
        return self.network.head.decode(outs)


class Deployed:
    """A :class:`DeployedStudent` in torch, in its fastest form, with all tasks of its head."""

    def __init__(self, model: nn.Module, batch: dict, dtype=None):
        self.network, self.dtype = _deployed(model, batch), dtype
        self.device = model.data_preprocessor.device

    def compile(self, batch: dict) -> 'Deployed':
        """Compile the network; see :func:`_compile`."""
        return _compile(self, [self.network], batch)

    def preprocess(self, batch: dict) -> Tensor:
        return _images(batch).to(self.device)

    def run(self, images: Tensor) -> Dict[str, Tensor]:
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            return dict(zip(self.network.outputs, self.network(images)))

    def postprocess(self, outs: Any) -> Any:
        return outs

    def decode(self, outs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        return outs


class SubprocessBackend:
    """The official baseline in a process of its own, which gives freed memory back at once.

    Args:
        model (nn.Module): KD360-VoxelBEV's student.

    Attributes:
        local (Eager): The same in this process.
    """

    def __init__(self, model: nn.Module):
        self.local = Eager(model, official=True)
        context = multiprocessing.get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, daemon=True, args=(
            theirs, self.local, torch.get_num_threads()))
        self.process.start()
        theirs.close()

    def preprocess(self, batch: dict) -> None:
        self._call('preprocess', batch)

    def run(self, data: None) -> Dict[str, None]:
        return dict.fromkeys(self._call('run'))

    def postprocess(self, outs: Any) -> None:
        self._call('postprocess')

    def decode(self, outs: Any) -> Dict[str, Tensor]:
        return self._call('decode')

    def _call(self, step: str, *args) -> Any:
        try:
            self.pipe.send((step, args))
            return self.pipe.recv()
        except (EOFError, OSError):
            raise UserError("the official baseline's process ended; its message is above. Is "
                            'memory short?') from None


@torch.no_grad()
def _serve(pipe, backend: Eager, threads: int) -> None:
    torch.set_num_threads(threads)
    data = outs = None
    while True:
        try:
            step, args = pipe.recv()
        except EOFError:
            return
        if step == 'preprocess':
            data = backend.preprocess(*args)
        elif step == 'run':
            outs = backend.run(data)
        elif step == 'postprocess':
            backend.postprocess(outs)
        pipe.send(backend.decode(outs) if step == 'decode' else
                  list(outs) if step == 'run' else None)


class OnnxRuntime(Deployed):
    """The exported graph in onnxruntime, on the CPU or CUDA, as the model is."""

    def __init__(self, model: nn.Module, batch: dict):
        import onnxruntime

        deployed = _deployed(model, batch, 'block_dense')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        provider = 'CUDA' if model.data_preprocessor.device.type == 'cuda' else 'CPU'
        self.names = deployed.outputs
        self.session = onnxruntime.InferenceSession(
            to_onnx(deployed, (_images(batch), )).SerializeToString(), options,
            providers=[f'{provider}ExecutionProvider'])

    def preprocess(self, batch: dict):
        return _images(batch).numpy()

    def run(self, images) -> Dict[str, Tensor]:
        outs = self.session.run(list(self.names), {self.session.get_inputs()[0].name: images})
        return dict(zip(self.names, map(torch.from_numpy, outs)))


class OpenVINO(OnnxRuntime):
    """The exported graph in OpenVINO on the CPU.

    Args:
        half (bool): Let it compute in bfloat16 where the processor can.
    """

    def __init__(self, model: nn.Module, batch: dict, half: bool = False):
        import openvino

        deployed = _deployed(model, batch, 'embedding_bag')
        self.names = deployed.outputs
        config = dict(INFERENCE_NUM_THREADS=torch.get_num_threads(), PERFORMANCE_HINT='LATENCY',
                      INFERENCE_PRECISION_HINT='bf16' if half else 'f32')
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'student.xml'
            save_openvino(to_openvino(deployed, (_images(batch), )), path)
            self.compiled = openvino.Core().compile_model(str(path), 'CPU', config)

    def run(self, images) -> Dict[str, Tensor]:
        outs = self.compiled([images])
        return {name: torch.from_numpy(outs[n]) for n, name in enumerate(self.names)}


def build_backend(name: str, model: nn.Module, batch: dict):
    """A backend by its name, such as ``'eager'``, ``'deployed-compiled-bf16'`` or ``'openvino'``.

    Args:
        name (str): One of ``BACKENDS``, and after hyphens ``'compiled'`` and ``'bf16'`` or
            ``'fp16'``. On a CPU ``'official'`` is :class:`SubprocessBackend`; ``'official-kept'``
            runs in this process.
        model (nn.Module): As built from its config, in eval mode.
        batch (dict): Packed frames, collated; of the sizes that will come.

    Raises:
        UserError: There is no such backend, or not of this model.
    """
    if name == 'official' and model.data_preprocessor.device.type == 'cpu':
        return SubprocessBackend(model)
    if name == 'official-kept':
        return Eager(model, official=True)
    check_backend(name)
    base, *suffixes = name.split('-')
    dtype = next((_DTYPES[word] for word in suffixes if word in _DTYPES), None)
    if base in ('eager', 'official', 'deployed'):
        backend = (Deployed(model, batch, dtype) if base == 'deployed' else
                   Eager(model, dtype, base == 'official'))
        return backend.compile(batch) if 'compiled' in suffixes else backend
    if base == 'openvino':
        return OpenVINO(model, batch, half=bool(suffixes))
    return OnnxRuntime(model, batch)


def check_backend(name: str) -> None:
    """Raise a UserError unless there is such a backend and its packages are installed."""
    if name in ('official', 'official-kept'):
        return
    base, *suffixes = name.split('-')
    unknown = [word for word in suffixes if word not in SUFFIXES]
    if base not in BACKENDS or unknown:
        raise UserError(f'backend {name!r}: expected one of {", ".join(BACKENDS)}, where wanted '
                        f'followed by -{", -".join(SUFFIXES)}')
    if base in _PACKAGES:
        if suffixes and name != 'openvino-bf16':
            raise UserError(f'backend {name!r}: {base} runs as {base}'
                            f'{" or openvino-bf16" if base == "openvino" else ""} only')
        need(*_PACKAGES[base], what=f'backend {name!r}')


def _deployed(model: nn.Module, batch: dict, form: Optional[str] = None) -> DeployedStudent:
    student = getattr(model, 'student', model)
    rig = model.data_preprocessor(batch, False)['inputs']['rig']
    return DeployedStudent(model, rig, tuple(student.head.outputs()), form)


def _images(batch: dict) -> Tensor:
    images = torch.stack(list(batch['inputs']['img']))
    return images if images.dim() == 5 else images[:, None]


@torch.no_grad()
def _compile(backend, modules: Sequence[nn.Module], batch: dict):
    """Compile modules of a backend in place, and run it once, which is when it happens.

    Weights become constants (freezing), so that norms and layouts are settled beforehand.
    """
    import torch._inductor.config

    for module in modules:
        module.requires_grad_(False).compile()
    with torch._inductor.config.patch(freezing=True):
        backend.run(backend.preprocess(batch))
    return backend
