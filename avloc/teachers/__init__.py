"""Frozen teachers that compute the hints of clips, one file each.

Audio: PANNs Cnn14, YAMNet and VGGish. Image: DETR and EfficientNet-Lite0. YAMNet and Lite0 share one embedding
space of concepts (`avloc.networks.concepts`). A new teacher has its file here, its name in `avloc.config`
(`AUDIO_TEACHERS` or `VISUAL_TEACHERS`), its weights in `avloc.weights.catalog` and its line in `avloc.distill.sources`.
"""

from avloc.teachers.base import Hint, Teacher
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
    "VggishTeacher",
    "YamnetTeacher",
    "choose_sound",
]
