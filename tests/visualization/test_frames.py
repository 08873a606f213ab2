"""Names of models in a drawing."""
import pytest

from mmdet3d_plugin.visualization import frames


@pytest.mark.parametrize('stems, names', [
    (['kd360_student_r18_500it_toytown', 'kd360_teacher_r18_500it_toytown'],
     ['student', 'teacher']),
    (['a_b', 'a_b'], ['a_b', 'a_b']), (['x'], ['x']), (['a', 'a_b'], ['a', 'a_b'])])
def test_models_are_named_by_what_differs(stems, names):
    assert frames.short_names(stems) == names
