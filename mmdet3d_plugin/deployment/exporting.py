"""A deployed student as a file that runs without torch."""
import contextlib
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Iterable, Iterator, Mapping, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import atomic_write, disk_errors
from ..errors import UserError
from .deployed import DeployedStudent

OPSET = 18
_HALF_KEEPS = ('GridSample', 'Resize', 'InstanceNormalization', 'ReduceMean', 'Softmax')


def to_onnx(deployed: DeployedStudent, example: Tuple[Tensor, ...]):
    """Trace a deployed student to ONNX: standard operators, any batch size.

    The batch size of one that reads past images is 1.

    Args:
        deployed: Of the form ``'block_dense'``, ``'grid_sample'`` or ``'dynamic_calibration'``.
        example: Inputs of its sizes.

    Returns:
        onnx.ModelProto: With the opset ``OPSET``; sizes but the batch's are constant.
    """
    need('onnx', 'onnxscript')
    images, shapes = example[0], None
    if not deployed.past:
        batch = torch.export.Dim('batch', min=1)
        images = torch.cat([images[:1]] * 2)  # torch takes a batch of one for a constant
        shapes = ({0: batch}, *[None] * (len(example) - 1))
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            deployed, (images, *example[1:]), dynamo=True, opset_version=OPSET,
            input_names=list(deployed.inputs), output_names=list(deployed.outputs),
            dynamic_shapes=shapes, external_data=False, verbose=False)
    return program.model_proto


def half_precision(model):
    """The same network with float16 weights and sums; inputs, outputs and sampling stay as is.

    Args:
        model (onnx.ModelProto): Of :func:`to_onnx`.
    """
    from onnxruntime.transformers import float16, onnx_model

    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *_HALF_KEEPS]
    with _quiet():
        half = float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    made = set()
    nodes = [node for node in half.graph.node  # it repeats casts, which are the same
             if node.output[0] not in made and not made.add(node.output[0])]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    onnx_model.OnnxModel(half).topological_sort()
    return half


def quantised(model, frames: Iterable[Mapping[str, np.ndarray]]):
    """The same network with convolutions and matrix products in 8 bits, calibrated on frames.

    Args:
        model (onnx.ModelProto): Of :func:`to_onnx`.
        frames: Inputs by name, of a batch of one.

    Returns:
        onnx.ModelProto: With ``QuantizeLinear`` and ``DequantizeLinear`` nodes.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Frames(quantization.CalibrationDataReader):
        queue = iter(frames)

        def get_next(self):
            return next(self.queue, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        paths = [str(Path(folder) / name) for name in ('float.onnx', 'ready.onnx', 'int8.onnx')]
        onnx.save(model, paths[0])
        quant_pre_process(*paths[:2], skip_symbolic_shape=True)
        quantization.quantize_static(
            paths[1], paths[2], Frames(), per_channel=True,
            op_types_to_quantize=['Conv', 'MatMul', 'Gemm'],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8)
        return onnx.load(paths[2])


def save_onnx(model, path: Path) -> None:
    """Check a model and write it whole or not at all.

    Raises:
        ValueError: It is no valid model, or needs operators beyond the standard's.
    """
    import onnx

    onnx.checker.check_model(model)
    foreign = {node.op_type for node in model.graph.node if node.domain not in ('', 'ai.onnx')}
    if foreign:
        raise ValueError(f'operators beyond the standard: {sorted(foreign)}')
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


def to_openvino(deployed: DeployedStudent, example: Tuple[Tensor, ...]):
    """Convert a deployed student to OpenVINO, any batch size.

    Args:
        deployed: Of the form ``'embedding_bag'`` or ``'dynamic_calibration'``.
        example: Inputs of its sizes.

    Returns:
        openvino.Model: With named inputs and outputs.
    """
    need('openvino')
    import openvino

    with torch.no_grad(), _quiet():
        model = openvino.convert_model(deployed, example_input=example)
    shapes = {n: list(values.shape) for n, values in enumerate(example)}
    if not deployed.past:
        shapes[0][0] = -1
    model.reshape(shapes)
    for names, ports in ((deployed.inputs, model.inputs), (deployed.outputs, model.outputs)):
        for name, port in zip(names, ports):
            port.get_tensor().set_names({name})
    for name, parameter in zip(deployed.inputs, model.get_parameters()):
        parameter.set_friendly_name(name)
    return model


def save_openvino(model, path: Path, half: bool = False) -> None:
    """Write ``path`` (.xml) and the weights beside it (.bin), each whole or not at all.

    Args:
        model (openvino.Model): Of :func:`to_openvino`.
        path: Ends with ``.xml``.
        half: Store weights as float16.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder, disk_errors(path):
        whole = Path(folder) / 'model.xml'
        openvino.save_model(model, str(whole), compress_to_fp16=half)
        for suffix in ('.bin', '.xml'):
            with atomic_write(path.with_suffix(suffix)) as file:
                file.write(whole.with_suffix(suffix).read_bytes())


def need(*packages: str, what: str = 'exporting') -> None:
    """Raise a UserError unless packages are installed, of which the plugin needs none itself."""
    import importlib.util

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'{what} needs {", ".join(missing)}; pip install {" ".join(missing)}')


@contextlib.contextmanager
def _quiet(level: Optional[int] = logging.ERROR) -> Iterator[None]:
    """Without the remarks of the tools on each other."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logging.disable(level)
        try:
            yield
        finally:
            logging.disable(before)
