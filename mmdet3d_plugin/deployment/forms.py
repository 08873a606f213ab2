"""The forms in which one model can run, behind one interface, to be compared."""
import copy
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any, Dict

import torch
from torch import Tensor, nn

from ..errors import UserError
from .deployed import DeployedStudent
from .exporting import save_openvino, to_onnx, to_openvino
from .official_baseline import OfficialBaseline

_DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16)
FORMS = ('eager', 'replica', 'deployed', 'onnxruntime', 'openvino')
SUFFIXES = ('compiled', *_DTYPES)


class Eager:
    """The model itself, or its replica.

    ``prepare`` (packed frames to what the network takes), ``run`` (the network) and ``finish``
    (its outputs to predictions) are the three parts of a prediction in every form.

    Args:
        model (nn.Module): In eval mode; it is copied where it is changed.
        compiled (bool): Compile image encoder, BEV encoder and head.
        dtype (torch.dtype, optional): Of autocast.
        replica (bool): The official data flow; see :class:`.replica.OfficialBaseline`.
    """

    def __init__(self, model: nn.Module, compiled: bool = False, dtype=None,
                 replica: bool = False):
        self.preprocessor, self.dtype = model.data_preprocessor, dtype
        self.network = OfficialBaseline(model) if replica else getattr(model, 'student', model)
        if compiled:
            self.network = copy.deepcopy(self.network)
            parts = [getattr(self.network, name, None) for name in ('bev_encoder', 'head')]
            branch = getattr(self.network, 'camera_branch', self.network)
            for part in filter(None, [branch.encoder, *parts]):
                _compile(part)

    def prepare(self, batch: dict) -> dict:
        return self.preprocessor(batch, False)

    def run(self, data: dict) -> Dict[str, Tensor]:
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype is not None):
            return self.network(**data, mode='tensor')

    def finish(self, outs: Dict[str, Tensor]) -> Any:
        return self.network.head.predict(outs)

    def probability(self, outs: Dict[str, Tensor]) -> Tensor:
        """Of the segmentation, for comparisons."""
        return outs['segmentation'].float().sigmoid()


class Deployed:
    """A :class:`DeployedStudent` in torch, with all tasks of its head."""

    def __init__(self, model: nn.Module, batch: dict, compiled: bool = False, dtype=None):
        self.network, self.dtype = _deployed(model, batch, 'embedding_bag'), dtype
        self.device = model.data_preprocessor.device
        if compiled:
            _compile(self.network)

    def prepare(self, batch: dict) -> Tensor:
        return _images(batch).to(self.device)

    def run(self, images: Tensor) -> Dict[str, Tensor]:
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            return dict(zip(self.network.outputs, self.network(images)))

    def finish(self, outs: Any) -> Any:
        return outs

    def probability(self, outs: Dict[str, Tensor]) -> Tensor:
        return outs['segmentation']


class SubprocessBackend:
    """The replica in a process of its own, where freed memory goes back as torch does by default.

    Args:
        model (nn.Module): KD360-VoxelBEV's student.

    Attributes:
        local (Eager): The same in this process.
    """

    def __init__(self, model: nn.Module):
        self.local = Eager(model, replica=True)
        context = multiprocessing.get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, daemon=True, args=(
            theirs, self.local, torch.get_num_threads()))
        self.process.start()
        theirs.close()

    def prepare(self, batch: dict) -> None:
        self._call('prepare', batch)

    def run(self, data: None) -> Dict[str, None]:
        return dict.fromkeys(self._call('run'))

    def finish(self, outs: Any) -> None:
        self._call('finish')

    def probability(self, outs: Any) -> Tensor:
        return self._call('probability')

    def _call(self, step: str, *args) -> Any:
        try:
            self.pipe.send((step, args))
            return self.pipe.recv()
        except (EOFError, OSError):
            raise UserError("the replica's process ended; its message is above. Is memory short?"
                            ) from None


@torch.no_grad()
def _serve(pipe, form: Eager, threads: int) -> None:
    torch.set_num_threads(threads)
    data = outs = None
    while True:
        try:
            step, args = pipe.recv()
        except EOFError:
            return
        if step == 'prepare':
            data = form.prepare(*args)
        elif step == 'run':
            outs = form.run(data)
        elif step == 'finish':
            form.finish(outs)
        pipe.send(form.probability(outs) if step == 'probability' else
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

    def prepare(self, batch: dict):
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


def build_form(name: str, model: nn.Module, batch: dict):
    """A form by its name, such as ``'eager'``, ``'deployed-compiled-bf16'`` or ``'openvino'``.

    Args:
        name (str): One of ``FORMS``, and after hyphens ``'compiled'`` and ``'bf16'`` or ``'fp16'``.
            On a CPU ``'replica'`` is :class:`SubprocessBackend`; ``'replica-kept'`` runs in this
            process.
        model (nn.Module): As built from its config, in eval mode.
        batch (dict): Packed frames, collated; of the sizes that will come.

    Raises:
        UserError: There is no such form, or not of this model.
    """
    if name == 'replica' and model.data_preprocessor.device.type == 'cpu':
        return SubprocessBackend(model)
    if name == 'replica-kept':
        return Eager(model, replica=True)
    base, *suffixes = name.split('-')
    unknown = [word for word in suffixes if word not in SUFFIXES]
    if base not in FORMS or unknown:
        raise UserError(f'form {name!r}: expected one of {", ".join(FORMS)}, where wanted followed '
                        f'by -{", -".join(SUFFIXES)}')
    style = dict(compiled='compiled' in suffixes,
                 dtype=next((_DTYPES[word] for word in suffixes if word in _DTYPES), None))
    if base in ('eager', 'replica'):
        return Eager(model, replica=base == 'replica', **style)
    if base == 'deployed':
        return Deployed(model, batch, **style)
    if base == 'openvino' and suffixes in ([], ['bf16']):
        return OpenVINO(model, batch, half=bool(suffixes))
    if suffixes:
        raise UserError(f'form {name!r}: {base} runs as {base}'
                        f'{" or openvino-bf16" if base == "openvino" else ""} only')
    return OnnxRuntime(model, batch)


def _deployed(model: nn.Module, batch: dict, form: str) -> DeployedStudent:
    student = getattr(model, 'student', model)
    rig = model.data_preprocessor(batch, False)['inputs']['rig']
    return DeployedStudent(model, rig, getattr(student.head, 'tasks', None), form)


def _images(batch: dict) -> Tensor:
    images = torch.stack(list(batch['inputs']['img']))
    return images if images.dim() == 5 else images[:, None]


def _compile(module: nn.Module) -> None:
    """In place; weights become constants, so that norms and layouts are settled beforehand."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    module.requires_grad_(False).compile()
