"""The frozen teachers, each turning clips into hints, one file each.

PANNs Cnn14, YAMNet and VGGish hear; DETR and EfficientNet-Lite0 see. The hints of YAMNet and Lite0 are vectors
of concepts (`avloc.networks.concepts`), in one space.
"""

from avloc.teachers.base import Hint, Teacher
from avloc.teachers.detr import DetrSettings, DetrTeacher
from avloc.teachers.lite0 import Lite0Teacher
from avloc.teachers.panns import PannsSettings, PannsTeacher, choose_sound, source_is_there
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
    "VggishTeacher",
    "YamnetTeacher",
    "choose_sound",
    "source_is_there",
]
