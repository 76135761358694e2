"""Frozen teachers that compute the hints of clips, one file each.

Audio: PANNs Cnn14, YAMNet and VGGish. Image: DETR, EfficientNet-Lite0 and VGG19. YAMNet and Lite0 share one embedding
space of concepts (`avloc.networks.concepts`).
"""

from avloc.teachers.base import Hint, Teacher
from avloc.teachers.detr import DetrSettings, DetrTeacher
from avloc.teachers.lite0 import Lite0Teacher
from avloc.teachers.panns import PannsSettings, PannsTeacher, choose_sound, source_is_there
from avloc.teachers.vgg19 import Vgg19Teacher
from avloc.teachers.vggish import VggishSecondsTeacher, VggishTeacher
from avloc.teachers.yamnet import YamnetTeacher

__all__ = [
    "DetrSettings",
    "DetrTeacher",
    "Hint",
    "Lite0Teacher",
    "PannsSettings",
    "PannsTeacher",
    "Teacher",
    "Vgg19Teacher",
    "VggishSecondsTeacher",
    "VggishTeacher",
    "YamnetTeacher",
    "choose_sound",
    "source_is_there",
]
