"""Images for people."""
from .detections import detection_panel, draw_objects, draw_objects_bev
from .draw import (
    draw_bev,
    draw_boxes,
    draw_heatmap,
    draw_lidar_image,
    draw_points,
    draw_targets,
    frame_panel,
    instance_colours,
    panel,
    save_image,
)
from .stages import original_panel, pipeline_panel

__all__ = ['detection_panel', 'draw_bev', 'draw_boxes', 'draw_objects', 'draw_objects_bev',
           'draw_points', 'frame_panel', 'draw_heatmap', 'instance_colours', 'draw_lidar_image',
           'original_panel', 'panel', 'pipeline_panel', 'draw_targets', 'save_image']
