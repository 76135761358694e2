"""Event localization: the event of each second of a clip (AVE, Tian et al., ECCV 2018), and cross-modal matching.

`annotations` and `event_table` have the labels, `video_seconds` reads videos, `prepare` and `released_features` make a
store, `teachers` compute features and `features` reads them, `networks` and `matching` are the models with their
losses, `training` and `inference` run them, `evaluation` and `metrics` score them, `localization` and `timeline` are
for single videos. `commands` is what the command line runs, through `avloc.option_rules`.
"""
