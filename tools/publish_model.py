"""Make a checkpoint ready for others: the student alone, safe to load, with a hash in its name.

    python tools/publish_model.py CHECKPOINT OUT.pth

The file is OUT-HASH.pth, with eight digits of the weights' hash.
Optimiser, log history, assistant, terms and the prefix ``student.`` are left out. The file holds
plain types only (``torch.load(weights_only=True)``), among them the config that it loads into
strictly, as text under ``meta.cfg``.
"""
import argparse
import hashlib
import sys
from pathlib import Path
from typing import Mapping, Optional

from mmengine.config import Config

from mmdet3d_plugin import __version__
from mmdet3d_plugin.checkpoints import read_checkpoint, save_checkpoint, student_weights
from mmdet3d_plugin.engine.cli import run_tool
from mmdet3d_plugin.engine.config_text import read_config_text
from mmdet3d_plugin.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
META = ('dataset_meta', 'epoch', 'iter', 'seed', 'experiment_name', 'mmengine_version')


def publish(checkpoint: Mapping) -> dict:
    """The published content of a training checkpoint.

    Args:
        checkpoint (dict): What the Runner wrote, or a state dict.

    Returns:
        dict: ``state_dict`` of the student (or of the whole model if nothing was distilled) and
        ``meta``.
    """
    state = checkpoint.get('state_dict', checkpoint)
    student = student_weights(state)
    old = checkpoint.get('meta', {})
    meta = {key: old[key] for key in META if key in old}
    meta['mmdet3d_plugin_version'] = __version__
    if 'cfg' in old:
        config = _student_config(old['cfg'], student is not state)
        meta |= dict(cfg=config) if config else {}
    return dict(state_dict={key: value.detach().clone() for key, value in student.items()},
                meta=meta)


def _student_config(text: str, distilled: bool) -> Optional[str]:
    """The config of the student as text; None where the text is not only values."""
    try:
        cfg = read_config_text(text, 'meta.cfg')._cfg_dict
        student = cfg['model']['student'] if distilled else None
        if isinstance(student, str):
            student = _model_of(Path(student))
    except (UserError, KeyError, TypeError) as error:
        reason = str(error).removeprefix('meta.cfg: ')
        print(f'meta.cfg is left out: {reason}', file=sys.stderr)
        return None
    return Config({**cfg, 'model': student} if distilled else cfg).pretty_text


def _model_of(path: Path) -> dict:
    """The model of a config file; of this checkout only, since config files are code."""
    if ROOT / 'configs' not in path.resolve().parents:
        raise UserError(f'the student is the file {path}, which is not in {ROOT / "configs"}')
    return Config.fromfile(path).model


def fingerprint(state: Mapping) -> str:
    """Eight hex digits of the weights; equal weights give an equal name."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description='Publish the student of a checkpoint')
    parser.add_argument('checkpoint', help='checkpoint of a training')
    parser.add_argument('out', help='file to write; the hash is put before its suffix .pth')
    args = parser.parse_args()
    out = Path(args.out)
    if out.suffix != '.pth':
        raise UserError(f'{out}: expected a name that ends with .pth')
    content = publish(read_checkpoint(args.checkpoint))
    path = out.with_name(f'{out.stem}-{fingerprint(content["state_dict"])}.pth')
    save_checkpoint(content, path)
    size = path.stat().st_size / 2**20
    print(f'{path}: {len(content["state_dict"])} tensors, {size:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
