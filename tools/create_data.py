"""Makes the folders that training reads: a synthetic world, or info files from a raw data set."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def toytown(args):
    """Writes a synthetic world."""
    from data_converter.toytown import dur360bev_layout, kitti360_layout, nuscenes_layout

    layout = dict(dur360bev=dur360bev_layout, kitti360=kitti360_layout,
                  nuscenes=nuscenes_layout)[args.layout]
    sizes = dict(image_size=args.image_size, scan_size=args.scan_size)
    if args.layout == 'nuscenes':
        sizes['sweeps'] = args.sweeps
    report = layout.write(
        args.out_dir,
        args.frames,
        args.seed,
        sequences=args.sequences,
        workers=args.workers,
        supersample=args.supersample,
        **{name: tuple(size) for name, size in sizes.items() if size},
    )
    print(
        '{out_dir}: {frames} frames in {sequences} sequences ({train} train, {test} test), '
        '{written} written now'.format(**report)
    )


def dur360bev(args):
    """Converts a Dur360BEV folder, real or from toytown, into info files."""
    from data_converter.dur360bev import convert

    report = convert(
        args.root_path, args.out_dir or args.root_path, args.version, args.workers, args.check,
        args.rasterizer
    )
    for key, value in report.items():
        print(f'{key}: {value}')


def kitti360(args):
    """Converts a KITTI-360 folder, real or from toytown, into info files."""
    from data_converter import kitti360

    options = kitti360.Options(
        args.boxes, tuple(args.sequences), args.split, tuple(args.val_drives),
        tuple(args.max_frames), min_points=args.min_points, undistort=args.undistort)
    report = kitti360.convert(args.root_path, args.out_dir, options, args.workers, args.check,
                              args.rasterizer)
    for key, value in report.items():
        print(f'{key}: {value}')


def nuscenes(args):
    """Converts a nuScenes folder, real or from toytown, into info files."""
    from data_converter.nuscenes import convert

    report = convert(args.root_path, args.out_dir, args.version, args.workers, args.check,
                     args.max_sweeps, args.rasterizer)
    for key, value in report.items():
        print(f'{key}: {value}')


def nuscenes_frame(args):
    """Converts a folder with one nuScenes keyframe and its mmdet3d info file."""
    from data_converter.nuscenes_frame import convert
    for key, value in convert(args.root_path, args.out_dir).items():
        print(f'{key}: {value}')


def add_rasterizer(parser):
    """The option that all converters share."""
    parser.add_argument('--rasterizer', choices=['exact', 'release'],
                        help='report (and note in the info files) the BEV cells of each class that '
                        'this method of RasterizeBEV draws')


def parse_args(argv=None):
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    town = commands.add_parser('toytown', help=toytown.__doc__)
    town.add_argument(
        '--layout', choices=['dur360bev', 'kitti360', 'nuscenes'], default='dur360bev',
        help='on-disk format'
    )
    town.add_argument('--out-dir', required=True, help='new folder, or one to finish')
    town.add_argument('--frames', type=int, default=300)
    town.add_argument('--seed', type=int, default=0)
    town.add_argument(
        '--image-size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='image: dual fisheye, W = 2 H (default: 640 1280), or each of the two fisheyes of '
        'kitti360, W = H (default: 1400 1400), or each of the six of nuscenes (default: 900 1600)',
    )
    town.add_argument(
        '--scan-size',
        type=int,
        nargs=2,
        metavar=('BEAMS', 'COLS'),
        help='LiDAR scan (default: 128 2048; kitti360: 64 2048; nuscenes: 32 1084)',
    )
    town.add_argument(
        '--sequences',
        type=int,
        help='towns; the last fifth is the test split (default: about one for 12 frames)',
    )
    town.add_argument(
        '--supersample', type=int, default=2, help='n x n rays per pixel (default: 2)'
    )
    town.add_argument(
        '--sweeps', type=int, nargs=2, metavar=('SCANS', 'IMAGES'), default=(9, 5),
        help='nuscenes: scans, and images of each camera, between two key frames (default: 9 5)',
    )
    town.add_argument('--workers', type=int, default=2)
    town.set_defaults(run=toytown)

    raw = commands.add_parser('dur360bev', help=dur360bev.__doc__)
    raw.add_argument(
        '--root-path', required=True, help='folder with image/, labels/, ouster_points/, ...'
    )
    raw.add_argument('--out-dir', help='where the info files go (default: the root path)')
    raw.add_argument(
        '--version', default='extended', choices=['initial', 'extended', 'mini', 'complete']
    )
    raw.add_argument('--workers', type=int, default=1)
    raw.add_argument('--check', action='store_true', help='read back what was written')
    add_rasterizer(raw)
    raw.set_defaults(run=dur360bev)

    raw = commands.add_parser('kitti360', help=kitti360.__doc__)
    raw.add_argument('--root-path', required=True,
                     help='folder with calibration/, data_2d_raw/, data_3d_raw/, ...')
    raw.add_argument('--out-dir', help='where the info files go (default: the root path)')
    raw.add_argument('--boxes', choices=['train', 'train_full'], default='train',
                     help='folder of data_3d_bboxes')
    raw.add_argument('--sequences', type=int, nargs='+', default=(), metavar='N',
                     help='drives to convert, such as 0 10 (default: all that have boxes)')
    raw.add_argument('--split', default='drives',
                     help='drives, windows (the official lists), or a folder with train.txt and '
                     'val.txt of <sequence>;<frame>')
    raw.add_argument('--val-drives', type=int, nargs='+', default=[10], metavar='N',
                     help='drives held out by --split drives (default: 10)')
    raw.add_argument('--max-frames', type=int, nargs=2, default=(20000, 1000),
                     metavar=('TRAIN', 'VAL'), help='drawn evenly; 0 = all (default: 20000 1000)')
    raw.add_argument('--min-points', type=int, default=1,
                     help='points of the scan that a static box needs (default: 1)')
    raw.add_argument('--undistort', action='store_true',
                     help="count them in the scan corrected for the car's motion")
    raw.add_argument('--workers', type=int, default=1)
    raw.add_argument('--check', action='store_true',
                     help='decode every image and scan, and read back what was written')
    add_rasterizer(raw)
    raw.set_defaults(run=kitti360)

    raw = commands.add_parser('nuscenes', help=nuscenes.__doc__)
    raw.add_argument('--root-path', required=True,
                     help='folder with samples/, sweeps/ and the folder of the version')
    raw.add_argument('--out-dir', help='where the info files go (default: the root path)')
    raw.add_argument('--version', default='v1.0-trainval',
                     choices=['v1.0-mini', 'v1.0-trainval', 'v1.0-test'])
    raw.add_argument('--max-sweeps', type=int, default=10,
                     help='LiDAR sweeps before each key frame at most (default: 10)')
    raw.add_argument('--workers', type=int, default=1)
    raw.add_argument('--check', action='store_true',
                     help="decode the key frames' images and scans, and read back what was "
                     'written')
    add_rasterizer(raw)
    raw.set_defaults(run=nuscenes)

    frame = commands.add_parser('nuscenes-frame', help=nuscenes_frame.__doc__)
    frame.add_argument('--root-path', required=True, help='folder of info file, images and sweep')
    frame.add_argument('--out-dir', required=True, help='data root of the new info file')
    frame.set_defaults(run=nuscenes_frame)
    return parser.parse_args(argv)


def main():
    """Runs the command; what a user can cause ends with one line and exit code 1."""
    args = parse_args()
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'create_data {args.command}: error: {error}')
    except KeyboardInterrupt:
        sys.exit(f'create_data {args.command}: stopped; the same command finishes the rest')


if __name__ == '__main__':
    main()
