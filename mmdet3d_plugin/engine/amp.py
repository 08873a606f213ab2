"""Mixed precision that needs no GPU."""
from contextlib import contextmanager

import torch
from mmdet3d.registry import OPTIM_WRAPPERS
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 where that is safe; on CPUs as on GPUs.

    bfloat16 has the range of float32, so no loss is scaled. Weights, optimiser state, geometry and
    losses stay float32. Arguments as in mmengine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        """The context of a training step."""
        device = get_device()
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
