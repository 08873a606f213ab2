# As kd360_distill_r18_500it_toytown_am.py, at stage 2 (deepest features of the U-Net).
_base_ = ['./kd360_distill_r18_500it_toytown_am.py']

tap = 'bev_encoder[2]'
model = dict(
    assistant=dict(bev_encoder=dict(decode=False), head=None),
    terms=dict(
        student=dict(student=f'student.{tap}', teacher=f'teacher.{tap}'),
        assistant=dict(student=f'assistant.{tap}', teacher=f'teacher.{tap}')))
