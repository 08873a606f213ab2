# The classes of nuScenes' detection task, as the heads of CenterPointHead share them.
tasks = [['car'], ['truck', 'construction_vehicle'], ['bus', 'trailer'], ['barrier'],
         ['motorcycle', 'bicycle'], ['pedestrian', 'traffic_cone']]
