# Parts of KD360-VoxelBEV's models as in the authors' release.

# Rarely -------------------------------------------------------------------------------------------
release_view = dict(wrap=False, border='fade')  # features fade to zero at the edges of the image
release_head = dict(losses=dict(offset=dict(type='OffsetL1Loss', masked=False)))
release_fuser = dict(type='SGFM', channels=128, bias=True)
release_flips = dict(image=0.5, rows=0.5, cols=0.5, undo_late=True)
