"""AVE: the event of every second, from a picture that is looked at where the sound says.

Tian, Shi, Li, Duan and Xu, "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018. The sound weighs the
cells of each second's picture; both modalities run through an LSTM of their own and are joined, by concatenation or,
in the *dual multimodal residual network* (DMRN), by adding to each what both share. With weak labels, which say only
what a clip holds, the scores of its best seconds count.

Shape letters: B batch, T seconds, C channels, P cells, K classes, background last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.config import ModelConfig
from avloc.methods.base import Published, tensors_of
from avloc.methods.events import AUDIO, CELLS, VISUAL, EventMethod, Features
from avloc.registry import EVENT_SPECS

_HIDDEN = 128
"""Width of each LSTM in each direction."""
_JOINT = 64
_PLACES = CELLS * CELLS


@dataclass(frozen=True)
class Told:
    """What AVE says of B clips."""

    scores: Tensor
    """[B, T, K] before any softmax."""
    probabilities: Tensor
    """[B, T, K] per second."""
    attention: Tensor
    """[B, T, 7, 7] share of each cell in what was seen; the cells of a second add up to 1."""


class AVE(EventMethod):
    """The network of AVE's authors in its three forms; `weak` changes what is learnt, not what there is.

    Args:
        config: `own` has `classes`, the number of events without background; `dmrn`, `weak` and `cross_entropy`.
    """

    head = ("L1.", "L2.", "U_v.", "U_a.")
    """Beginnings of the names of what the plain model and DMRN do not have alike."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        own = config.own
        self.lstm_audio = nn.LSTM(AUDIO, _HIDDEN, batch_first=True, bidirectional=True)
        self.lstm_video = nn.LSTM(VISUAL, _HIDDEN, batch_first=True, bidirectional=True)
        self.affine_audio = nn.Linear(AUDIO, VISUAL)
        self.affine_video = nn.Linear(VISUAL, VISUAL)
        self.affine_v = nn.Linear(VISUAL, _PLACES, bias=False)
        self.affine_g = nn.Linear(VISUAL, _PLACES, bias=False)
        self.affine_h = nn.Linear(_PLACES, 1, bias=False)
        if own["dmrn"]:
            self.U_v, self.U_a = _residual(), _residual()
            self.L2 = nn.Linear(2 * _HIDDEN, own["classes"] + 1)
            drawn: list[nn.Module] = [self.L2]
        else:
            self.L1 = nn.Linear(4 * _HIDDEN, _JOINT)
            self.L2 = nn.Linear(_JOINT, own["classes"] + 1)
            drawn = [part for part in self.modules() if isinstance(part, nn.Linear)]
        for part in drawn:
            nn.init.xavier_uniform_(part.get_parameter("weight"))

    def attend(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen where the sound points.

        Args:
            visual: [B, T, 7, 7, 512].
            audio: [B, T, 128].

        Returns:
            [B, T, 512] mean of the cells, weighted by the attention, and the attention [B, T, 7, 7].
        """
        cells_BTPC = visual.flatten(2, 3)
        seen_BTPH = self.affine_v(F.relu(self.affine_video(cells_BTPC)))
        heard_BTP = self.affine_g(F.relu(self.affine_audio(audio)))
        # There are as many hidden units as cells. The paper's formula adds the sound to the units; its authors' code
        # adds it to the cells, and published weights expect that.
        scores_BTP = self.affine_h(torch.tanh(seen_BTPH + heard_BTP[..., None])).squeeze(-1)
        attention_BTP = scores_BTP.softmax(-1)
        attended = torch.einsum("btp,btpc->btc", attention_BTP, cells_BTPC)
        return attended, attention_BTP.unflatten(-1, (CELLS, CELLS))

    def remember(self, attended: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Both modalities [B, T, 256] in the light of the other seconds, forward then backward; the sound first."""
        return self.lstm_audio(audio)[0], self.lstm_video(attended)[0]

    def _classified(self, heard: Tensor, seen: Tensor) -> Tensor:
        if self.config.own["dmrn"]:
            shared = (self.U_v(seen) + self.U_a(heard)) / 2
            joint = (torch.tanh(heard + shared) + torch.tanh(seen + shared)) / 2
        else:
            joint = F.relu(self.L1(F.relu(torch.cat((heard, seen), -1))))
        scores: Tensor = self.L2(joint)
        return scores

    def tell(self, visual: Tensor, audio: Tensor) -> Told:
        """The event of every second of clips of any one length.

        Args:
            visual: [B, T, 7, 7, 512].
            audio: [B, T, 128].
        """
        attended, attention = self.attend(visual, audio)
        scores = self._classified(*self.remember(attended, audio))
        return Told(scores, scores.softmax(-1), attention)

    def losses(self, features: Features) -> dict[str, Tensor]:
        """Term `event`.

        The authors take a multi-label soft margin, which expects scores, of probabilities: it cannot fall below 0.680,
        and its gradients are small. `cross_entropy` takes the plain cross-entropy of the scores in its place. `weak`
        compares the clip's scores (`of_clip`) with the clip's class, else every second counts.
        """
        scores, labels = self.tell(features.visual, features.audio).scores, features.labels
        if self.config.own["weak"]:
            assert features.clips is not None
            scores, labels = of_clip(scores), features.clips
        if self.config.own["cross_entropy"]:
            return {"event": F.cross_entropy(scores.flatten(0, -2), labels.flatten())}
        truth = F.one_hot(labels, scores.shape[-1]).to(scores)
        return {"event": F.binary_cross_entropy_with_logits(scores.softmax(-1), truth)}

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """The parameters of a pickled module; `weak` in the name of the file tells apart two that have the same."""
        if len(files) != 1:
            return None
        ((name, content),) = files.items()
        state = tensors_of(content, "state_dict")
        if not {"affine_v.weight", "lstm_video.weight_ih_l0", "L2.weight"} <= state.keys():
            return None
        outputs = (*state["L2.weight"].shape, 0)[0]
        if outputs < 2:
            return None
        own = {
            "classes": outputs - 1,
            "dmrn": "U_v.0.weight" in state,
            "weak": re.search("(?<![a-z])weak", name.lower()) is not None,
            "cross_entropy": False,
        }
        return ModelConfig(**EVENT_SPECS["ave"].settings["model"], own=own), state


def of_clip(scores: Tensor) -> Tensor:
    """[B, K] scores of whole clips: of each class the highest in any second of [B, T, K]."""
    return scores.amax(-2)


def _residual() -> nn.Sequential:
    width = 2 * _HIDDEN
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
