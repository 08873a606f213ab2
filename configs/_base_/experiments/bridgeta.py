# BridgeTA's experiments, at full size and on toytown: the runs and the paper's figures.

# Sometimes ----------------------------------------------------------------------------------------
epsilons = (0.25, 1.0, 4.0)

# Rarely -------------------------------------------------------------------------------------------
map_metrics = ('map/mean', 'map/drivable_area', 'map/ped_crossing', 'map/walkway', 'map/stop_line',
               'map/carpark_area', 'map/divider')
levels = ('features', 'decoded', 'logits')
crossed = ('teacher_head', 'assistant_head')
config = 'configs/bridgeta/bridgeta_{}.py'


def plain(role, paper=None):
    return dict(config=config.format(role), options={}, paper=paper)


def distilled(how, kept, paper=None, direct=False, options=None, **more):
    """A run with the terms in ``kept``; unused parts of the assistant are removed."""
    own = (*levels, *crossed[:1]) if direct else (*levels, *crossed)
    options = {**(options or {}),
               **{f'model.terms.{name}': None for name in own if name not in kept}}
    if not direct and not {'logits', *crossed} & set(kept):
        options['model.assistant.head'] = None
    if not direct and not {'decoded', 'logits', *crossed} & set(kept):
        options['model.assistant.bev_encoder'] = None
    if isinstance(paper, float):  # only the mean
        paper = (paper, *[None] * 6)
    return dict(config=config.format('distill_{net}_{schedule}_{data}' + '_direct' * direct),
                teacher='teacher', options=options, paper=paper,
                columns=dict(how=how, terms=', '.join(kept)), **more)


def bridged(how, paper=None, **options):
    """A run with all terms; ``options`` are set in the terms of the three levels."""
    return distilled(how, (*levels, *crossed), paper, options={
        f'model.terms.{level}.{key}': value for level in levels for key, value in options.items()})


full = bridged('assistant', (60.8, 83.3, 58.6, 62.9, 53.6, 56.6, 50.1))
without = distilled('direct', (*levels, crossed[0]), 58.2, direct=True)
teacher = plain('teacher_{net}-voxel_{schedule}_{data}')
teacher['options'] = {'auto_scale_lr.enable': True}  # its rate is for eight GPUs
table4 = dict(
    teacher=teacher,
    student=plain('student_{net}_{schedule}_{data}', (56.6, 81.7, 54.8, 58.4, 47.4, 50.7, 46.4)),
    direct=distilled('direct', levels, 57.8, direct=True),
    direct_crossed=without,
    features=distilled('assistant', levels[:1], 58.5),
    decoded=distilled('assistant', levels[:2], 59.4),
    logits=distilled('assistant', levels, 60.5),
    full=full,
    # not specified in the paper: initial weights from the camera model and from the teacher
    student_started=distilled('assistant, student started', (*levels, *crossed), start='student'),
    assistant_started=distilled('assistant started', (*levels, *crossed),
                                options={'model.init_from_teacher': ['assistant']}),
    both_started=distilled('both started', (*levels, *crossed), start='student',
                           options={'model.init_from_teacher': ['assistant']}))
fig5 = dict(
    teacher=teacher,
    direct_crossed=without,
    full=full,
    sample=bridged('assistant, epsilon of each sample', scope='sample'),
    **{f'epsilon_{value:g}': bridged(f'assistant, epsilon {value:g}', epsilon=value)
       for value in epsilons})
table1 = {  # re-implemented by the paper's authors
    'SimDistill': (59.2, 82.4, 57.3, 61.3, 51.1, 54.4, 48.3),
    'MapDistill': (59.5, 82.6, 57.4, 61.7, 51.6, 54.5, 48.8)}
