# As kd360_distill_r18_500it_toytown_am.py, at all three stages, with learned weights.
_base_ = ['./kd360_distill_r18_500it_toytown_am.py']

# Rarely -------------------------------------------------------------------------------------------
stages = dict(  # tap of the student, tap of the teacher and of the assistant
    stage1=('camera_branch', 'fuser'),
    stage2=('bev_encoder[2]', 'bev_encoder[2]'),
    stage3=('bev_encoder[-1]', 'bev_encoder[-1]'))


def term(student, teacher):
    return dict(type='FeatureTerm', student=student, teacher=f'teacher.{teacher}',
                criterion=_base_.channel_wise_kl, weight='learned')


terms = {name: term(f'student.{own}', its) for name, (own, its) in stages.items()}
terms.update({f'{name}_assistant': term(f'assistant.{its}', its)
              for name, (_, its) in stages.items()})
model = dict(assistant=dict(head=None), terms=dict(_delete_=True, **terms))
