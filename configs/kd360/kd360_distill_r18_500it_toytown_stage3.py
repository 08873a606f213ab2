# As kd360_distill_r18_500it_toytown_am.py, at stage 3 of the paper (output of the U-Net).
_base_ = ['./kd360_distill_r18_500it_toytown_am.py']

tap = 'bev_encoder[-1]'
model = dict(
    assistant=dict(head=None),
    terms=dict(
        student=dict(student=f'student.{tap}', teacher=f'teacher.{tap}'),
        assistant=dict(student=f'assistant.{tap}', teacher=f'teacher.{tap}')))
