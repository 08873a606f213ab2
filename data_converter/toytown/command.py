"""The command that writes toytown."""
from argparse import Namespace

from . import dur360bev_layout, kitti360_layout, nuscenes_layout


def run(args: Namespace) -> str:
    """Write a data set; returns what was done.

    Args:
        args: Of ``tools/create_data.py toytown``.

    Raises:
        ValueError: Impossible settings, or those of another layout.
    """
    layout = dict(dur360bev=dur360bev_layout, kitti360=kitti360_layout,
                  nuscenes=nuscenes_layout)[args.layout]
    sizes, more = dict(image_size=args.image_size, scan_size=args.scan_size), {}
    if args.layout == 'nuscenes':
        sizes['sweeps'], more['virtual_points'] = args.sweeps, args.virtual_points
    elif args.virtual_points:
        raise ValueError('--virtual-points: only --layout nuscenes has them')
    report = layout.write(
        args.out_dir, args.frames, args.seed, sequences=args.sequences, workers=args.workers,
        supersample=args.supersample, **more,
        **{name: tuple(size) for name, size in sizes.items() if size})
    return ('{out_dir}: {frames} frames in {sequences} sequences ({train} train, {test} test), '
            '{written} written now'.format(**report))
