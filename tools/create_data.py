"""Makes the folders that training reads: a synthetic world, or info files from a raw data set."""
import argparse
import sys


def toytown(args):
    """Writes a synthetic world."""
    from data_converter.toytown.command import run
    print(run(args))


def dur360bev(args):
    """Converts a Dur360BEV folder, real or from toytown, into info files."""
    from data_converter.dur360bev import convert
    show(convert(args.root_path, args.out_dir or args.root_path, args.version, args.workers,
                 args.check, args.rasterizer, args.splits, args.overwrite))


def kitti360(args):
    """Converts a KITTI-360 folder, real or from toytown, into info files."""
    from data_converter.kitti360 import Options, convert

    options = Options(args.boxes, tuple(args.sequences), args.split, tuple(args.val_drives),
                      tuple(args.max_frames), min_points=args.min_points, undistort=args.undistort)
    show(convert(args.root_path, args.out_dir, options, args.workers, args.check, args.rasterizer,
                 args.splits, args.overwrite))


def nuscenes(args):
    """Converts a nuScenes folder, real or from toytown, into info files."""
    from data_converter.nuscenes import convert
    show(convert(args.root_path, args.out_dir, args.version, args.workers, args.check,
                 args.max_sweeps, args.rasterizer, args.splits, args.overwrite))


def nuscenes_frame(args):
    """Converts a folder with one nuScenes keyframe and its mmdet3d info file."""
    from data_converter.nuscenes_frame import convert
    show(convert(args.root_path, args.out_dir))


def virtual_points(args):
    """Converts MVP's virtual points of nuScenes (*.pkl.npy) to files that run no code (*.npz)."""
    from data_converter.virtual_points import convert
    show(convert(args.root_path))


def show(report):
    """Prints what a converter found."""
    print(*(f'{key}: {value}' for key, value in report.items()), sep='\n')


def add_command(commands, run):
    """A command; returns its ``add_argument``."""
    parser = commands.add_parser(run.__name__.replace('_', '-'), help=run.__doc__)
    parser.set_defaults(run=run)
    return parser.add_argument


def add_toytown(commands):
    """The synthetic world's arguments."""
    add = add_command(commands, toytown)
    add('--layout', choices=['dur360bev', 'kitti360', 'nuscenes'], default='dur360bev',
        help='on-disk format')
    add('--out-dir', required=True, help='new folder, or one to finish')
    add('--frames', type=int, default=300)
    add('--seed', type=int, default=0)
    add('--image-size', type=int, nargs=2, metavar=('H', 'W'),
        help='image: dual fisheye, W = 2 H (default: 640 1280), or each of the two fisheyes of '
        'kitti360, W = H (default: 1400 1400), or each of the six of nuscenes (default: 900 1600)')
    add('--scan-size', type=int, nargs=2, metavar=('BEAMS', 'COLS'),
        help='LiDAR scan (default: 128 2048; kitti360: 64 2048; nuscenes: 32 1084)')
    add('--sequences', type=int,
        help='towns; the last fifth is the test split (default: about one for 12 frames)')
    add('--supersample', type=int, default=2, help='n x n rays per pixel (default: 2)')
    add('--sweeps', type=int, nargs=2, metavar=('SCANS', 'IMAGES'), default=(9, 5),
        help='nuscenes: scans, and images of each camera, between two key frames (default: 9 5)')
    add('--virtual-points', action='store_true', help="nuscenes: also MVP's points of each scan")
    add('--workers', type=int, default=2)


def add_converter(commands, run, layout, check):
    """A converter with the arguments that all of them share; returns its ``add_argument``."""
    add = add_command(commands, run)
    add('--root-path', required=True, help=f'folder with {layout}')
    add('--out-dir', help='where the info files go (default: the root path)')
    add('--workers', type=int, default=1)
    add('--check', action='store_true', help=check)
    add('--splits', nargs='+', default=(), help='write these only, such as val (default: all)')
    add('--overwrite', action='store_true',
        help='replace info files of another version or choice of frames')
    add('--rasterizer', choices=['exact', 'release', 'lift_splat'],
        help='report (and note in the info files) the BEV cells of each class that this method of '
        'RasterizeBEV draws')
    return add


def parse_args(argv=None):
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    add_toytown(commands)

    add = add_converter(commands, dur360bev, 'image/, labels/, ouster_points/, ...',
                        'read back what was written')
    add('--version', default='extended', choices=['initial', 'extended', 'mini', 'complete'])

    add = add_converter(commands, kitti360, 'calibration/, data_2d_raw/, data_3d_raw/, ...',
                        'decode every image and scan, and read back what was written')
    add('--boxes', choices=['train', 'train_full'], default='train', help='of data_3d_bboxes')
    add('--sequences', type=int, nargs='+', default=(), metavar='N',
        help='drives to convert, such as 0 10 (default: all that have boxes)')
    add('--split', default='drives', help='drives, windows (the official lists), or a folder with '
        'train.txt and val.txt of <sequence>;<frame>')
    add('--val-drives', type=int, nargs='+', default=[10], metavar='N',
        help='drives held out by --split drives (default: 10)')
    add('--max-frames', type=int, nargs=2, default=(20000, 1000), metavar=('TRAIN', 'VAL'),
        help='drawn evenly; 0 = all (default: 20000 1000)')
    add('--min-points', type=int, default=1,
        help='points of the scan that a static box needs (default: 1)')
    add('--undistort', action='store_true', help='count them in the scan without ego motion')

    add = add_converter(commands, nuscenes, 'samples/, sweeps/ and the folder of the version',
                        "decode the key frames' images and scans, and read back what was written")
    add('--version', default='v1.0-trainval', choices=['v1.0-mini', 'v1.0-trainval', 'v1.0-test'])
    add('--max-sweeps', type=int, default=10, help='of LiDAR, before a key frame (default: 10)')

    add = add_command(commands, nuscenes_frame)
    add('--root-path', required=True, help='folder of info file, images and sweep')
    add('--out-dir', required=True, help='data root of the new info file')

    add_command(commands, virtual_points)(
        '--root-path', required=True, help='folder with samples/LIDAR_TOP_VIRTUAL/, ...')
    return parser.parse_args(argv)


def main():
    """Runs the command; what a user can cause ends with one line and exit code 1."""
    args = parse_args()
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        from mmdet3d_plugin.engine.environment import explain
        sys.exit(f'create_data {args.command}: error: {explain(error) or error}')
    except KeyboardInterrupt:
        sys.exit(f'create_data {args.command}: stopped; the same command finishes the rest')


if __name__ == '__main__':
    main()
