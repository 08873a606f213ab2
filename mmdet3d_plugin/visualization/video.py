"""Videos of images of frames."""
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Callable, Iterator

import cv2
import numpy as np

from ..checkpoints import atomic_write
from ..errors import UserError


@contextlib.contextmanager
def writing_video(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Collect images to an mp4 file, which is written at the end, whole or not at all.

    Args:
        path: Of the file.
        fps: Images a second.

    Yields:
        Callable: Appends an (H, W, 3) uint8 RGB image; images of another size than the first are
        cut, or filled with white, at the right and at the bottom.

    Raises:
        UserError: OpenCV cannot write it, or not all of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / 'video.mp4'
        film = _Film(partial, fps)
        yield film.add
        if film.finish():
            with open(partial, 'rb') as source, atomic_write(path) as file:
                shutil.copyfileobj(source, file)


class _Film:

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps, self.count = path, fps, 0

    def add(self, image: np.ndarray) -> None:
        if not self.count:
            self.size = tuple(side + side % 2 for side in image.shape[:2])  # as codecs need it
            code = cv2.VideoWriter_fourcc(*'mp4v')
            self.writer = cv2.VideoWriter(str(self.path), code, self.fps, self.size[::-1])
            if not self.writer.isOpened():
                raise UserError(f'this OpenCV writes no mp4 of {self.size[1]}x{self.size[0]}; '
                                'choose a smaller --width')
        canvas = np.full((*self.size, 3), 255, np.uint8)
        image = image[:self.size[0], :self.size[1], ::-1]
        canvas[:image.shape[0], :image.shape[1]] = image
        self.writer.write(canvas)
        self.count += 1

    def finish(self) -> int:
        """How many images the file has."""
        if self.count:
            self.writer.release()
            video = cv2.VideoCapture(str(self.path))
            if sum(1 for _ in iter(video.grab, False)) != self.count:
                raise UserError(f'the video has not all of its {self.count} images; make room in '
                                f'{self.path.parent}, and run the same command again')
        return self.count
