"""Random flips inside the network, undone before anybody else sees a feature."""
from typing import Callable, NamedTuple, Tuple

import torch
from torch import Tensor

_IMAGE_COLS, _BEV_ROWS, _BEV_COLS = -1, -2, -1


class Flips(NamedTuple):
    """One draw of flips for a batch; each (B,) bool.

    Attributes:
        image (Tensor): Flip the image before the image encoder, its features after it.
        rows (Tensor): Flip the BEV features along the rows.
        cols (Tensor): Flip the BEV features along the columns.
        undo_late (bool): Undo the BEV flips in the last map only, as the authors' release of
            KD360-VoxelBEV does: the maps before it, which distillation taps, stay flipped.
    """
    image: Tensor
    rows: Tensor
    cols: Tensor
    undo_late: bool = False

    @classmethod
    def draw(cls, batch: int, image: float = 0.5, rows: float = 0.5, cols: float = 0.5,
             undo_late: bool = False, device='cpu') -> 'Flips':
        """Independent draws with the given probabilities, from torch's global CPU generator."""
        masks = torch.rand(3, batch) < torch.tensor([[image], [rows], [cols]])
        return cls(*masks.to(device), undo_late)

    def run_on_image(self, function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """``flip(function(flip(image)))``, per sample."""
        return _flip(function(_flip(image, self.image, _IMAGE_COLS)), self.image, _IMAGE_COLS)

    def enter_bev(self, function: Callable[[Tensor], Tensor], bev: Tensor) -> Tensor:
        """``unflip(function(flip(bev)))`` for the first layers on the BEV plane."""
        out = function(self.flip_bev(bev))
        return out if self.undo_late else self.flip_bev(out)

    def enter_bev_by_kernel(self, convolve: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
        """:meth:`enter_bev` of a convolution, with its kernel flipped in place of its input.

        Args:
            convolve (callable): Kernels of each sample (B, O, C, K, K) to (B, O, rows, cols).
            weight (Tensor): (O, C, K, K).
        """
        out = convolve(self.flip_bev(weight.expand(len(self.rows), *weight.shape)))
        return self.flip_bev(out) if self.undo_late else out

    def leave_bev(self, function: Callable[[Tensor], Tuple[Tensor, ...]],
                  bev: Tensor) -> Tuple[Tensor, ...]:
        """The same for the last layers, which return several maps."""
        if self.undo_late:
            *inner, last = function(bev)
            return (*inner, self.flip_bev(last))
        return tuple(self.flip_bev(level) for level in function(self.flip_bev(bev)))

    def flip_bev(self, bev: Tensor) -> Tensor:
        """Flip (B, ..., rows, columns) as drawn for each sample."""
        return _flip(_flip(bev, self.rows, _BEV_ROWS), self.cols, _BEV_COLS)


def _flip(x: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """Flip the chosen samples of (B, ...) along ``dim``."""
    return torch.where(chosen.view(-1, *[1] * (x.dim() - 1)), x.flip(dim), x)
