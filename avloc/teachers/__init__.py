"""Frozen teachers that compute the hints of clips, one file each.

Audio: PANNs Cnn14, YAMNet and VGGish. Image: DETR and EfficientNet-Lite0. YAMNet and Lite0 share one embedding
space of concepts (`avloc.networks.concepts`). How to add a teacher: `avloc.teachers.base`.
"""

from avloc.teachers.base import Hint, Teacher, TeacherContext
from avloc.teachers.detr import DetrSettings, DetrTeacher
from avloc.teachers.lite0 import Lite0Teacher
from avloc.teachers.panns import PannsSettings, PannsTeacher, choose_sound
from avloc.teachers.vggish import VggishTeacher
from avloc.teachers.yamnet import YamnetTeacher

__all__ = [
    "DetrSettings",
    "DetrTeacher",
    "Hint",
    "Lite0Teacher",
    "PannsSettings",
    "PannsTeacher",
    "Teacher",
    "TeacherContext",
    "VggishTeacher",
    "YamnetTeacher",
    "choose_sound",
]
