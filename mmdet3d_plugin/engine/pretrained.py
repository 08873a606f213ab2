"""Weights that mmengine loads itself (``init_cfg``, ``load_from``), read without running code."""
import os
import re
import socket
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine.runner.checkpoint
import torch
from mmengine.runner import CheckpointLoader

from ..checkpoints import file_sha256, read_checkpoint
from ..errors import UserError

_TIMEOUT_S = 30


class DownloadError(UserError):
    """Weights cannot be downloaded.

    Args:
        url (str): Where the weights are.
        file (Path): Where they would be kept.
        reason (Exception): Why they are not there.
    """

    def __init__(self, url: str, file: Path, reason: Exception) -> None:
        super().__init__(
            f'weights {url}: cannot be downloaded to {file} ({reason}); download them elsewhere '
            'and put them there, or start without them, with init_cfg=None (load_from=None) where '
            'the config names this URL')
        self.url = url


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a local file; see :func:`mmdet3d_plugin.checkpoints.read_checkpoint`."""
    return read_checkpoint(filename, map_location or 'cpu')


def load_url(url: str, model_dir: str = None, map_location: Any = None, **_) -> dict:
    """Load weights from torch's cache of downloads, into which they are downloaded if need be.

    Args:
        url (str): Where the weights are.
        model_dir (str, optional): Folder of the downloads. Defaults to ``checkpoints`` in torch's
            hub folder.
        map_location (str, optional): Device of the tensors. Defaults to 'cpu'.

    Returns:
        dict: The content.

    Raises:
        DownloadError: The file is not in the cache and cannot be downloaded.
        UserError: It does not load safely, or its hash is not that of its name.
    """
    folder = Path(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    file = folder / os.path.basename(urlparse(url).path)
    if not file.is_file():
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_TIMEOUT_S)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), progress=os.isatty(2))
        except (OSError, HTTPException) as error:
            raise DownloadError(url, file, error) from error
        finally:
            socket.setdefaulttimeout(timeout)
    _check_hash(file, url)
    return read_checkpoint(file, map_location or 'cpu')


def _check_hash(file: Path, url: str) -> None:
    """Compare the digits of the SHA-256 that a name ends with, but a date: ``x-191a3822.pth``."""
    found = re.search(r'-(?!20\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.[a-z]+$', file.name)
    digest = file_sha256(file) if found else ''
    if found and not digest.startswith(found[1]):
        raise UserError(f'weights {url}: {file} is damaged or of another origin: its SHA-256 '
                        f'begins with {digest[:len(found[1])]}, its name says {found[1]}; delete '
                        'it, and it is downloaded again')


mmengine.runner.checkpoint.load_url = load_url  # of http://, torchvision://, open-mmlab:// alike
