"""Pictures for people."""
from .draw import (
    bev_picture,
    draw_boxes,
    draw_points,
    frame_panel,
    instance_colours,
    lidar_picture,
    panel,
)

__all__ = ['bev_picture', 'draw_boxes', 'draw_points', 'frame_panel', 'instance_colours',
           'lidar_picture', 'panel']
