"""Pictures for people."""
from .draw import (
    bev_picture,
    draw_boxes,
    draw_points,
    frame_panel,
    heat_picture,
    instance_colours,
    lidar_picture,
    panel,
    target_pictures,
)
from .stages import original_panel, pipeline_panel

__all__ = ['bev_picture', 'draw_boxes', 'draw_points', 'frame_panel', 'heat_picture',
           'instance_colours', 'lidar_picture', 'original_panel', 'panel', 'pipeline_panel',
           'target_pictures']
