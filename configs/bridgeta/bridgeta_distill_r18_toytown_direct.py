# The same without an assistant: the student learns from the teacher directly, at the same levels.
_base_ = ['./bridgeta_distill_r18_toytown.py']

# Rarely -------------------------------------------------------------------------------------------
squared = dict(type='SquaredDistance')


def direct(student, teacher, weight):
    return dict(type='FeatureTerm', student=f'student.{student}', teacher=f'teacher.{teacher}',
                criterion=squared, weight=weight)


model = dict(
    assistant=None,
    terms=dict(
        _delete_=True,
        features=direct('camera_branch', 'fuser', _base_.weight_features),
        decoded=direct('bev_encoder[-1]', 'bev_encoder[-1]', _base_.weight_decoded),
        logits=direct('head.segmentation', 'head.segmentation', _base_.weight_logits),
        teacher_head=_base_.model.terms.teacher_head))
