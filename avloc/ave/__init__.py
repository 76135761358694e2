"""Event localization: the event of each second of a clip (AVE, Tian et al., ECCV 2018), and cross-modal matching.

`annotations` and `event_table` hold the labels, `prepare` and `released_features` make a store, `teachers` and
`features` make and read features, `networks` and `matching` are the models with their losses, `training` and
`inference` run them, `evaluation` and `metrics` score them, `localization` and `timeline*` are for single videos.
`avloc.registry` names what the commands use of it.
"""
