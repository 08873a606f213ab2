# BridgeTA's terms, with the assistant at three levels: features, decoded features, logits.

# Often changed ------------------------------------------------------------------------------------
# The paper does not give the weights. Larger weights of the levels make the student worse, see
# projects/bridgeta/README.md.
weight_features, weight_decoded, weight_logits, weight_heads = 1e-3, 1e-3, 1e-2, 1.0
epsilon = 'optimal'

# Sometimes ----------------------------------------------------------------------------------------
prediction_kl = dict(type='PredictionKL')

# Rarely -------------------------------------------------------------------------------------------
squared = dict(type='SquaredDistance')
terms = dict(
    features=dict(
        type='DualPathTerm', student='student.camera_branch', assistant='assistant.fuser',
        teacher='teacher.fuser', weight=weight_features, epsilon=epsilon),
    decoded=dict(
        type='DualPathTerm', student='student.bev_encoder[-1]',
        assistant='assistant.bev_encoder[-1]', teacher='teacher.bev_encoder[-1]',
        weight=weight_decoded, epsilon=epsilon),
    logits=dict(
        type='DualPathTerm', student='student.head.segmentation',
        assistant='assistant.head.segmentation', teacher='teacher.head.segmentation',
        weight=weight_logits, epsilon=epsilon),
    teacher_head=dict(
        type='CrossHeadTerm', student='student.bev_encoder[-1]', role='teacher',
        criterion=prediction_kl, weight=weight_heads),
    assistant_head=dict(
        type='CrossHeadTerm', student='student.bev_encoder[-1]', role='assistant',
        criterion=prediction_kl, weight=weight_heads))
direct_terms = dict(  # without an assistant
    features=dict(
        type='FeatureTerm', student='student.camera_branch', teacher='teacher.fuser',
        criterion=squared, weight=weight_features, log_distance=True),
    decoded=dict(
        type='FeatureTerm', student='student.bev_encoder[-1]', teacher='teacher.bev_encoder[-1]',
        criterion=squared, weight=weight_decoded, log_distance=True),
    logits=dict(
        type='FeatureTerm', student='student.head.segmentation',
        teacher='teacher.head.segmentation', criterion=squared, weight=weight_logits,
        log_distance=True),
    teacher_head=terms['teacher_head'])
