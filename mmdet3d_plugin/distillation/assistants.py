"""Assistants: train-only modules between teacher and student."""
from typing import Dict, Mapping, Optional

from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from ..errors import build_from


@MODELS.register_module()
class AuxiliaryModule(BaseModule):
    """KD360-VoxelBEV's auxiliary module (Sec. 3.3.4), and BridgeTA's teacher assistant.

    Fuses the student's camera BEV with the teacher's LiDAR BEV and decodes the result like the
    teacher does: an intermediate that is closer to the student's modality and keeps the LiDAR's
    geometry. A term compares it with the teacher; through the student's camera BEV it sends
    gradient into the student.

    Args:
        fuser (dict): Fuser of (camera, LiDAR).
        bev_encoder (dict, optional): As the teacher's; not needed where the terms tap the fuser.
        head (dict, optional): As the teacher's, with ``learn_weights=False`` and the tapped tasks
            only; needed where the terms tap predictions rather than features.
        camera (str): Tap of the student's BEV map.
        lidar (str): Tap of the teacher's LiDAR BEV map.
        detach_camera (bool): Send no gradient into the student from here.
        grid (BEVGrid, optional): The student's grid (passed by the distiller), for the head.
    """

    def __init__(self, fuser: dict, bev_encoder: Optional[dict] = None,
                 head: Optional[dict] = None, camera: str = 'student.camera_branch',
                 lidar: str = 'teacher.lidar_branch', detach_camera: bool = False, grid=None,
                 init_cfg=None):
        super().__init__(init_cfg)
        self.camera, self.lidar, self.detach_camera = camera, lidar, detach_camera
        self.taps = {camera, lidar}
        self.fuser = build_from(MODELS, fuser, 'assistant.fuser')
        self.bev_encoder = build_from(MODELS, bev_encoder, 'assistant.bev_encoder')
        self.head = build_from(MODELS, head, 'assistant.head', grid=grid)

    def forward(self, feats: Mapping[str, Tensor]) -> Optional[Dict[str, Tensor]]:
        """Run on the tapped maps; terms read the results through taps ``assistant.*``.

        Returns:
            dict | None: The head's outputs, where there is one.
        """
        camera = feats[self.camera].detach() if self.detach_camera else feats[self.camera]
        features = self.fuser(camera, feats[self.lidar])
        if self.bev_encoder is not None:
            features = self.bev_encoder(features)
        return None if self.head is None else self.head(features)
