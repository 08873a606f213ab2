# Table 4 and the epsilon of Fig. 5 on toytown: levels, assistant, epsilon.
#   python tools/run_experiments.py configs/bridgeta/experiments/table4_toytown.py
_base_ = ['../../_base_/experiments/toytown.py']

# Sometimes ----------------------------------------------------------------------------------------
title = 'BridgeTA on toytown: levels, assistant and epsilon'
paper = 'nuScenes, full size'
metrics = ('map/mean', 'map/drivable_area', 'map/divider')
baseline = 'student'

# Rarely -------------------------------------------------------------------------------------------
config = 'configs/bridgeta/bridgeta_{}_toytown{}.py'
levels = ('features', 'decoded', 'logits')
crossed = ('teacher_head', 'assistant_head')


def distilled(kind, kept, figure=None, variant='', **options):
    """A run with some of the terms; the assistant has what they need and nothing more."""
    own = (*levels, *crossed) if not variant else (*levels, crossed[0])
    options = {**_base_.schedule, **options,
               **{f'model.terms.{name}': None for name in own if name not in kept}}
    if not variant and not {'logits', *crossed} & set(kept):
        options['model.assistant.head'] = None
    if not variant and not {'decoded', 'logits', *crossed} & set(kept):
        options['model.assistant.bev_encoder'] = None
    return dict(config=config.format('distill_r18', variant), teacher='teacher', options=options,
                paper=figure and (figure, None, None),
                columns=dict(how=kind, terms=', '.join(kept)))


runs = dict(
    teacher=dict(config=config.format('teacher_r18-voxel', ''), options=_base_.schedule),
    student=dict(config=config.format('student_r18', ''), options=_base_.schedule,
                 paper=(56.6, 81.7, 46.4)),
    direct=distilled('direct', levels, 57.8, '_direct'),
    direct_crossed=distilled('direct', (*levels, crossed[0]), 58.2, '_direct'),
    features=distilled('assistant', levels[:1], 58.5),
    decoded=distilled('assistant', levels[:2], 59.4),
    logits=distilled('assistant', levels, 60.5),
    full=distilled('assistant', (*levels, *crossed), 60.8),
    epsilon_1=distilled('assistant, epsilon 1', (*levels, *crossed), None, **{
        f'model.terms.{level}.epsilon': 1.0 for level in levels}))
