"""KITTI-360's published calibration, for golden values."""
import numpy as np

CAM_TO_POSE = {
    0: (0.0371783278, -0.0986182135, 0.9944306009, 1.5752681039, 0.9992675562, -0.0053553387,
        -0.0378902567, 0.0043914093, 0.0090621821, 0.9951109327, 0.0983468786, -0.65),
    1: (0.0194000864, -0.1051529641, 0.9942668106, 1.5977241400, 0.9997374956, -0.0100836652,
        -0.0205732716, 0.5981494900, 0.0121891942, 0.9944049345, 0.1049297370, -0.6488433108),
    2: (0.9995185086, 0.0041276589, -0.0307524527, 0.7264036936, -0.0307926666, 0.0100608424,
        -0.9994751579, -0.1499658517, -0.0038160970, 0.9999408692, 0.0101830998, -1.0686400091),
    3: (-0.9996821702, 0.0005703407, -0.0252038325, 0.7016842127, -0.0252033830, 0.0007820814,
        0.9996820384, 0.7463650950, 0.0005898709, 0.9999995315, -0.0007674583, -1.0751978255)}
CAM0_TO_VELO = (0.04307104361, -0.08829286498, 0.995162929, 0.8043914418, -0.999004371,
                0.007784614041, 0.04392796942, 0.2993489574, -0.01162548558, -0.9960641394,
                -0.08786966659, -0.1770225824)
R_RECT_00 = (0.999974, -0.007141, -0.000089, 0.007141, 0.999969, -0.003247, 0.000112, 0.003247,
             0.999995)
P_RECT_00 = (552.554261, 0, 682.049453, 0, 552.554261, 238.769549, 0, 0, 1)
MEI = {2: dict(xi=2.2134047507854890, k1=0.016798235660113681, k2=1.6548773243373522,
               p1=4.2223943394772046e-4, p2=4.2462134260997584e-4, gamma1=1336.3220825849971,
               gamma2=1335.7883350012958, u0=716.94323510126321, v0=705.76498308221585),
       3: dict(xi=2.5535139132482758, k1=0.049370396274089505, k2=4.5068455478645308,
               p1=1.3477698472982495e-3, p2=-7.0340482615055284e-4, gamma1=1485.4388981875156,
               gamma2=1484.9477411748708, u0=698.88316784030962, v0=698.14541887723055)}


def matrix(numbers) -> np.ndarray:
    """(4, 4) of the 12 numbers of a calibration file."""
    return np.vstack([np.reshape(numbers, (3, 4)), [0, 0, 0, 1.0]])


def velo_to_pose() -> np.ndarray:
    """(4, 4)."""
    return matrix(CAM_TO_POSE[0]) @ np.linalg.inv(matrix(CAM0_TO_VELO))


def fisheye(k, theta_max_deg=92.5, **extra) -> dict:
    """Camera dict of fisheye 2 (left) or 3 (right), in the velodyne's frame."""
    lidar2cam = np.linalg.inv(matrix(CAM_TO_POSE[k])) @ velo_to_pose()
    return dict(name=f'image_0{k}', lens='mei', mei=MEI[k], lidar2cam=lidar2cam, height=1400,
                width=1400, theta_max_deg=theta_max_deg, **extra)


# A tiny folder in KITTI-360's layout ------------------------------------------------------------

FRAMES = 6
POSED = (1, 2, 4, 5)
"""The first pose is of frame 1, and frame 3 has none: the car stood still."""


def name_of(drive) -> str:
    """Folder of a drive."""
    return f'2013_05_28_drive_{drive:04d}_sync'


def pose(frame) -> np.ndarray:
    """T_w_p far from the origin: 2 m a frame along a course of 0.3 rad."""
    turn = np.array([[np.cos(.3), -np.sin(.3), 0], [np.sin(.3), np.cos(.3), 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3] = turn @ np.diag([1, -1, -1])
    out[:3, 3] = np.array([1234.5, 3800.25, 115.0]) + turn[:, 0] * 2 * frame
    return out


def velo_to_world(frame) -> np.ndarray:
    """T_w_v."""
    return pose(frame) @ velo_to_pose()


def place(x, y, z, size=(4, 2, 1.5), yaw=0.0, frame=2) -> np.ndarray:
    """Transform of a box that stands so in the velodyne's frame of a frame."""
    out = np.eye(4)
    out[:3, :3] = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0],
                            [0, 0, 1]]) * np.array(size)
    out[:3, 3] = x, y, z
    return velo_to_world(frame) @ out


def matrix_node(tag, values, dt='f') -> str:
    """An OpenCV matrix as KITTI-360 writes it: four numbers a line, lines indented."""
    values = np.asarray(values)
    numbers = [f'{v:.8e}' if dt == 'f' else str(v) for v in values.ravel()]
    rows = '\n      '.join(' '.join(numbers[i:i + 4]) for i in range(0, len(numbers), 4))
    return (f'<{tag} type_id="opencv-matrix"><rows>{values.shape[0]}</rows>'
            f'<cols>{values.shape[1]}</cols><dt>{dt}</dt><data>\n      {rows}</data></{tag}>')


def xml_object(n, transform=None, label='car', timestamp=-1, instance=1, **fields) -> str:
    """One object; ``fields`` None leaves a field out."""
    kitti = dict(car=13, truck=14, pedestrian=19, building=11, bus=34)
    values = dict(index=n, label=label, category=label, semanticId=kitti.get(label, 37),
                  instanceId=instance, timestamp=timestamp, dynamic=int(timestamp >= 0),
                  dynamicSeq=0, start_frame=1, end_frame=5) | fields
    text = ''.join(f'<{k}>{v}</{k}>' for k, v in values.items() if v is not None)
    if transform is not None:
        text += matrix_node('transform', transform)
    return f'<object{n}>{text}{matrix_node("vertices", np.ones((8, 3)))}</object{n}>\n'


def objects() -> list:
    """Seen and hidden, moving, ignored and malformed ones."""
    moving = dict(label='truck', instance=7)
    return [
        xml_object(1, place(10, 5, -1, yaw=0.5)),                         # seen
        xml_object(2, place(20, -5, -1), instance=2),                     # hidden
        xml_object(3, place(200, 0, -1), instance=3),                     # far away
        *(xml_object(4 + n, place(8 + t, -4, -1, (8, 2.5, 3), frame=2), timestamp=t, **moving)
          for n, t in enumerate((1, 2, 4))),
        xml_object(7, place(10, 5, -1), label='building', instance=0),    # no class of ours
        xml_object(8, instance=4),                                        # no transform
        xml_object(9, place(10, 5, -1, (4, 0, 1.5)), instance=5),         # flat
    ]


def make_root(root, drives=(2, 10), xml=None, side=8):
    """Write a data root; every scan has 30 points in the box of object 1, 3 in its height above."""
    import cv2
    rng = np.random.default_rng(0)
    calibration = root / 'calibration'
    calibration.mkdir(parents=True)
    lines = ''.join(f'image_{k:02d}: {" ".join(map(str, v))}\n' for k, v in CAM_TO_POSE.items())
    (calibration / 'calib_cam_to_pose.txt').write_text(lines)
    (calibration / 'calib_cam_to_velo.txt').write_text(' '.join(map(str, CAM0_TO_VELO)) + '\n')
    for k, mei in MEI.items():
        groups = dict(mirror_parameters=('xi', ), distortion_parameters=('k1', 'k2', 'p1', 'p2'),
                      projection_parameters=('gamma1', 'gamma2', 'u0', 'v0'))
        text = f'%YAML:1.0\n---\nmodel_type: MEI\nimage_width: {side}\nimage_height: {side}\n'
        for group, keys in groups.items():
            text += f'{group}:\n' + ''.join(f'   {key}: {mei[key]!r}\n' for key in keys)
        (calibration / f'image_{k:02d}.yaml').write_text(text)
    for drive in drives:
        name = name_of(drive)
        poses, velo = root / 'data_poses' / name, root / 'data_3d_raw' / name / 'velodyne_points'
        (root / 'data_3d_bboxes' / 'train').mkdir(parents=True, exist_ok=True)
        poses.mkdir(parents=True)
        (velo / 'data').mkdir(parents=True)
        numbers = ((f, *pose(f)[:3].ravel()) for f in POSED)
        (poses / 'poses.txt').write_text(''.join(' '.join(map(repr, map(float, row))) + '\n'
                                                 for row in numbers))
        (velo / 'timestamps.txt').write_text(''.join(
            f'2013-05-28 08:46:{n // 10:02d}.{n % 10}00000000\n' for n in range(FRAMES)))
        inside = np.c_[rng.uniform(-.49, .49, (30, 3)), np.ones(30)] @ place(10, 5, -1, yaw=.5).T
        above = np.c_[rng.uniform(-.49, .49, (3, 2)), np.full(3, .6), np.ones(3)] @ place(
            10, 5, -1, yaw=.5).T
        for frame in range(FRAMES):
            world = np.concatenate([inside, above])
            local = (world @ np.linalg.inv(velo_to_world(frame)).T)[:, :3]
            ground = np.c_[rng.uniform(-40, 40, (50, 2)), np.full(50, -8.0)]
            xyz = np.concatenate([local, ground])
            scan = np.c_[xyz, rng.uniform(0, 1, len(xyz))]
            scan.astype('<f4').tofile(velo / 'data' / f'{frame:010d}.bin')
            for camera in ('image_02', 'image_03'):
                folder = root / 'data_2d_raw' / name / camera / 'data_rgb'
                folder.mkdir(parents=True, exist_ok=True)
                image = rng.integers(0, 256, (side, side, 3), np.uint8)
                cv2.imwrite(str(folder / f'{frame:010d}.png'), image)
        (root / 'data_3d_bboxes' / 'train' / f'{name}.xml').write_text(
            '<?xml version="1.0"?>\n<opencv_storage>\n' + ''.join(xml or objects())
            + '</opencv_storage>\n')
    return root
