"""Frozen teachers that compute the hints of clips, one file each.

Audio: PANNs Cnn14, YAMNet and VGGish. Image: DETR and EfficientNet-Lite0. YAMNet and Lite0 share one embedding
space of concepts (`avloc.networks.concepts`). How to add a teacher: `avloc.teachers.base`.
"""
