"""Augmentation of several images, one matrix for each."""
from typing import Tuple

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ...errors import UserError
from ...structures import fields

_LEAST = 0.2  # of an image that is kept, and of the result that it fills


@TRANSFORMS.register_module()
class ImageAug3D(BaseTransform):
    """Resize, crop, perhaps flip and rotate each image on its own, as BEVFusion does.

    The lower ``H`` rows of the resized image are kept, columns at random (the middle when not
    ``random``). ``img_aug`` of each camera takes raw pixels to those of the result, and is exact:
    integers are pixel centres. Past images of a camera are augmented as its newest.

    Args:
        size (tuple): (H, W) of the result.
        resize (tuple | float): Range of the factor, or the factor. A factor of 1 is the smallest
            with which the image covers ``size``; BEVFusion's 0.38 to 0.55 of 900 x 1600 are the
            default.
        flip (float): Probability of a horizontal flip.
        rot_deg (float): Largest angle to either side, degrees.
        random (bool): False takes the middle of ``resize``, no flip, no rotation.
        release (bool): As BEVFusion's release: PIL's bicubic resizing, nearest neighbour for
            the rotation, and matrices that are off by up to half a pixel.
        relative (bool): False takes ``resize`` as factors of the image itself, whatever its size.

    Raises:
        UserError: Less than a fifth of an image is kept, or it fills less than a fifth of
            ``size``: ``resize`` is for images of another size.
    """

    def __init__(self, size: Tuple[int, int] = (256, 704), resize=(0.38 / 0.44, 0.55 / 0.44),
                 flip: float = 0.5, rot_deg: float = 5.4, random: bool = True,
                 release: bool = False, relative: bool = True):
        self.size, self.flip, self.rot_deg = tuple(size), flip, rot_deg
        self.resize = (resize, resize) if np.isscalar(resize) else tuple(resize)
        self.random, self.release, self.relative = random, release, relative
        if not 0 < self.resize[0] <= self.resize[1]:
            raise UserError(f'ImageAug3D.resize: expected a factor, or the lowest and the '
                            f'highest, got {resize}')

    def transform(self, results: dict) -> dict:
        """Augment every image."""
        images, cameras = results[fields.IMG], results[fields.CAMERAS]
        views = len(fields.at_time(cameras))
        draws = [self._draw() for _ in range(views)] * (len(images) // views)
        pairs = [self._augment(*args) for args in zip(images, cameras, draws)]
        results[fields.IMG], results[fields.CAMERAS] = map(list, zip(*pairs))
        return results

    def layout(self, before: Tuple[int, int], factor: float, shift: float = 0.5) -> tuple:
        """(width, height) of a resized (H, W) image, and the (column, row) where it is cut.

        Args:
            before: (H, W).
            factor: Of the image itself; see :meth:`factor_of`.
            shift: Part of the columns beyond the width that is cut on the left.
        """
        resized = int(before[1] * factor + 1e-6), int(before[0] * factor + 1e-6)
        kept = min(resized[0], self.size[1]) * min(resized[1], self.size[0])
        for area, what in ((resized[0] * resized[1], 'keeps {:.1%} of an image'),
                           (self.size[0] * self.size[1], 'fills {:.1%} of the result by an image')):
            if kept < _LEAST * area:
                raise UserError(
                    f'ImageAug3D: size={self.size} with a factor of {factor:.3g} '
                    f'{what.format(kept / max(area, 1))} of {before[1]}x{before[0]}; '
                    + ('choose resize near 1' if self.relative else
                       'set relative=True and resize near 1, or a factor for this size'))
        return resized, (int(shift * max(0, resized[0] - self.size[1])),
                         resized[1] - self.size[0])

    def factor_of(self, before: Tuple[int, int], drawn: float) -> float:
        """The factor of a (H, W) image itself, from a drawn value of ``resize``."""
        if not self.relative:
            return drawn
        return drawn * max(new / old for new, old in zip(self.size, before))

    def _augment(self, image, camera, draw):
        drawn, shift, flip, degrees = draw
        before = image.shape[:2]
        factor = self.factor_of(before, drawn)
        resized, corner = self.layout(before, factor, shift)
        if self.release:
            image = _with_pil(image, resized, corner, self.size, flip, degrees)
        else:
            image = cv2.resize(image, resized, interpolation=cv2.INTER_AREA)
        matrix = self._matrix(before, resized, corner, factor, flip, degrees)
        if not self.release:
            after = matrix @ np.linalg.inv(_resizing(before, resized))
            image = _warp(image, after, self.size)
        raw = dict(raw_height=camera.get('raw_height', before[0]),
                   raw_width=camera.get('raw_width', before[1]))
        camera = dict(camera, **raw, height=self.size[0], width=self.size[1],
                      img_aug=matrix @ camera.get('img_aug', np.eye(3)))
        return image, camera

    def _draw(self):
        low, high = self.resize
        if not self.random:
            return (low + high) / 2, 0.5, False, 0.0
        factor, shift, flip, rotation = torch.rand(4).tolist()
        return (low + factor * (high - low), shift, flip < self.flip,
                (2 * rotation - 1) * self.rot_deg)

    def _matrix(self, before, resized, corner, factor, flip, degrees):
        height, width = self.size
        half = 0.0 if self.release else 0.5
        matrix = np.diag([factor, factor, 1.0]) if self.release else _resizing(before, resized)
        matrix = _translation(-corner[0], -corner[1]) @ matrix
        if flip:
            matrix = _translation(width - 2 * half, 0) @ np.diag([-1.0, 1.0, 1.0]) @ matrix
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        middle = width / 2 - half, height / 2 - half
        rotation = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        return _translation(*middle) @ rotation @ _translation(-middle[0], -middle[1]) @ matrix


def _resizing(before, resized) -> np.ndarray:
    """Pixels of a (H, W) image to those of the (width, height) resized one."""
    x, y = resized[0] / before[1], resized[1] / before[0]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _translation(x, y) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _warp(image, matrix, size):
    """Bilinear, black outside; a crop is a copy."""
    left, top = np.rint(-matrix[:2, 2]).astype(int)
    if np.allclose(matrix, _translation(-left, -top), atol=1e-9) and left >= 0 and top >= 0 and (
            top + size[0] <= image.shape[0]) and left + size[1] <= image.shape[1]:
        return np.ascontiguousarray(image[top:top + size[0], left:left + size[1]])
    return cv2.warpAffine(image, matrix[:2], size[::-1], flags=cv2.INTER_LINEAR)


def _with_pil(image, resized, corner, size, flip, degrees):
    from PIL import Image

    image = Image.fromarray(image).resize(resized, Image.BICUBIC)
    image = image.crop((*corner, corner[0] + size[1], corner[1] + size[0]))
    if flip:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    return np.array(image.rotate(degrees))
