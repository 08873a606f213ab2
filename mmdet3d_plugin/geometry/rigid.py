"""Rigid transforms as 4x4 matrices acting on column vectors.

A matrix is named by its frames: ``lidar2cam`` maps LiDAR coordinates to camera coordinates, and
``lidar2cam = ego2cam @ lidar2ego``.
"""

import numpy as np


def rigid(rotation=None, translation=None) -> np.ndarray:
    """Build a 4x4 float64 transform from a rotation and a translation.

    Args:
        rotation: (3, 3) matrix, default identity.
        translation: (3,) in metres, default zero.

    Returns:
        (4, 4) float64.

    Example:
        >>> apply(rigid(translation=(1, 2, 3)), [[0., 0., 0.]])
        array([[1., 2., 3.]])
    """
    matrix = np.eye(4)
    if rotation is not None:
        matrix[:3, :3] = rotation
    if translation is not None:
        matrix[:3, 3] = translation
    return matrix


RFU_TO_FLU = rigid([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
"""Axes x right, y forward, z up (nuScenes' LiDAR) to x forward, y left, z up."""


def is_rigid(matrix, tolerance: float = 1e-3) -> bool:
    """Whether matrices (..., 4, 4) are rotations (no mirror, shear, scale) and translations.

    A translation longer than the Earth's circumference (1e8 m) is none.

    Example:
        >>> is_rigid(np.eye(4)), is_rigid(np.diag([1, 1, 2, 1])), is_rigid(np.diag([1, 1, -1, 1]))
        (True, False, False)
    """
    matrix = np.asarray(matrix, np.float64)
    turn = matrix[..., :3, :3]
    if not ((np.abs(matrix) < 1e8).all() and (matrix[..., 3, :] == [0, 0, 0, 1]).all()):
        return False
    with np.errstate(over='ignore', invalid='ignore'):
        error = np.abs(turn @ np.swapaxes(turn, -1, -2) - np.eye(3)).max(initial=0)
        return bool(error <= tolerance and (np.linalg.det(turn) > 0).all())


def inverse(matrix) -> np.ndarray:
    """Exact inverse of a rigid transform: R' = R^T, t' = -R^T t.

    Args:
        matrix: (..., 4, 4) rigid transform (orthonormal rotation part).

    Returns:
        (..., 4, 4) float64.

    Raises:
        ValueError: if the rotation part is not orthonormal within 1e-4.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    rotation = matrix[..., :3, :3].swapaxes(-1, -2)
    error = np.abs(rotation @ matrix[..., :3, :3] - np.eye(3)).max()
    if not error < 1e-4:
        raise ValueError(f'rotation part is not orthonormal: |R^T R - I| = {error:.2g}, '
                         'expected < 1e-4')
    out = np.broadcast_to(np.eye(4), matrix.shape).copy()
    out[..., :3, :3] = rotation
    out[..., :3, 3] = -(rotation @ matrix[..., :3, 3:])[..., 0]
    return out


def apply(matrix, points) -> np.ndarray:
    """Transform points.

    Args:
        matrix: (4, 4).
        points: (..., 3) in the source frame, metres.

    Returns:
        (..., 3) in the target frame, in the floating dtype of ``points``.
    """
    points = np.asarray(points)
    dtype = points.dtype if points.dtype.kind == 'f' else np.float64
    matrix = np.asarray(matrix, dtype=dtype)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def yaw_matrix(yaw: float) -> np.ndarray:
    """Rotation about +z as 4x4.

    Convention: positive yaw turns +x towards +y (counter-clockwise seen from above).

    Example:
        >>> apply(yaw_matrix(np.pi / 2), [[1., 0., 0.]]).round(6) + 0.
        array([[0., 1., 0.]])
    """
    c, s = np.cos(yaw), np.sin(yaw)
    return rigid([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def transform_boxes(matrix, boxes, up=(0.0, 0.0, 1.0)) -> np.ndarray:
    """Move boxes, and their velocities, by a rotation, flip, uniform scale and translation.

    Convention: the heading (cos yaw, sin yaw) and the velocity are vectors perpendicular to
    ``up``, of which x and y are known. They are transformed and read back, so mirroring y negates
    the yaw; sizes and velocities are multiplied by the scale of the transform. With the right
    ``up``, the way back through the inverse matrix is exact, also between tilted frames.

    Args:
        matrix: (4, 4) source frame -> target frame.
        boxes: (N, >=7) x, y, z, length, width, height, yaw, and perhaps vx, vy; metres, radians
            and seconds. NaN velocities stay NaN.
        up: (3,) direction in which the boxes stand, in the source frame.

    Returns:
        (N, >=7), float64; an eighth column alone, and columns after the ninth, are copied.
    """
    boxes = np.array(boxes, dtype=np.float64)
    matrix, up = np.asarray(matrix, dtype=np.float64), np.asarray(up, dtype=np.float64)

    def transform(vectors):
        z = -(vectors @ up[:2]) / up[2]
        return (np.concatenate([vectors, z[:, None]], 1) @ matrix[:3, :3].T)[:, :2]

    heading = transform(np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], -1))
    boxes[:, :3] = apply(matrix, boxes[:, :3])
    boxes[:, 3:6] *= abs(np.linalg.det(matrix[:3, :3])) ** (1 / 3)
    boxes[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    if boxes.shape[1] >= 9:
        boxes[:, 7:9] = transform(boxes[:, 7:9])
    return boxes


def box_corners(boxes) -> np.ndarray:
    """Corners of upright boxes.

    Convention: corners 0-3 are the bottom face (front-left, front-right, rear-right, rear-left),
    corners 4-7 the top face in the same order; boxes are centred at their gravity centre.

    Args:
        boxes: (N, >=7) x, y, z, length, width, height, yaw.

    Returns:
        (N, 8, 3) float64.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(len(boxes), -1 if len(boxes) else 7)
    unit = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) / 2
    unit = np.concatenate([np.pad(unit, ((0, 0), (0, 1)), constant_values=z) for z in (-.5, .5)])
    local = unit * boxes[:, None, 3:6]
    c, s = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    x, y = local[..., 0], local[..., 1]
    turned = np.stack([c * x - s * y, s * x + c * y, local[..., 2]], -1)
    return turned + boxes[:, None, :3]


def points_in_boxes(points, boxes, margin: float = 0.0) -> np.ndarray:
    """Which points lie in which upright box (faces included).

    Args:
        points: (P, >=3).
        boxes: (N, >=7), gravity centre.
        margin: added to every half size, metres.

    Returns:
        (N, P) bool.
    """
    points = np.asarray(points, dtype=np.float64)[:, :3]
    inside = np.zeros((len(boxes), len(points)), dtype=bool)
    for row, box in zip(inside, np.asarray(boxes, dtype=np.float64)):
        reach = np.linalg.norm(box[3:6]) / 2 + 2 * margin
        near = np.flatnonzero(np.abs(points - box[:3]).max(1) <= reach)
        local = (points[near] - box[:3]) @ yaw_matrix(box[6])[:3, :3]
        row[near] = (np.abs(local) <= box[3:6] / 2 + margin).all(1)
    return inside


def footprints_overlap(boxes, others) -> np.ndarray:
    """Which upright boxes overlap, seen from above; those that touch do not.

    Two rectangles are apart if they are so along a side of one of them.

    Args:
        boxes: (N, >=7).
        others: (M, >=7).

    Returns:
        (N, M) bool.
    """
    apart = np.zeros((len(boxes), len(others)), bool)
    corners = [box_corners(some)[:, :4, :2] for some in (boxes, others)]
    for own, swap in ((0, False), (1, True)):
        mine, theirs = corners[own], corners[1 - own]
        sides = mine[:, [0, 0]] - mine[:, [1, 3]]                            # (n, 2, 2)
        along = np.einsum('nsk,nck->nsc', sides, mine)[:, None]
        across = np.einsum('nsk,mck->nmsc', sides, theirs)
        gap = (across.min(-1) >= along.max(-1)) | (across.max(-1) <= along.min(-1))
        apart |= gap.any(-1).T if swap else gap.any(-1)
    return ~apart
