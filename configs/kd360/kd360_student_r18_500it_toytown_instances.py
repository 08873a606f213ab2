# As kd360_student_r18_500it_toytown.py, with instances and oriented boxes, and panoptic quality.
_base_ = ['./kd360_student_r18_500it_toytown.py']

model = dict(head=dict(instances=dict(type='CenterGrouping')))
pipeline = [
    _base_.load_camera,
    dict(**_base_.targets, instances=True),
    dict(type='PackBEVInputs', keys=('img', ))
]
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator, dict(type='BEVInstanceMetric')]
test_evaluator = val_evaluator
