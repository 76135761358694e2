"""AVE: predicts the event of every second from features of VGG19 and VGGish, with audio-guided visual attention.

Tian, Shi, Li, Duan and Xu, "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018. The audio features
give the attention over the cells of each second's image; each modality has an LSTM, and the two are fused by
concatenation or by a *dual multimodal residual network* (DMRN). With weak labels (the class of each clip) the loss is
taken over the highest score of each class in any second.

Shape letters: B batch, T seconds, C channels, P cells, K classes, background last.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.config import ModelConfig
from avloc.errors import UsageError
from avloc.methods import any_class
from avloc.methods.base import Published, PublishedModel, tensors_of
from avloc.registry import EVENT_SPECS

CELLS_PER_SIDE = 7
"""Cells along each side of the visual features."""
VISUAL_CHANNELS, AUDIO_CHANNELS = 512, 128
"""Channels of the last pooling layer of VGG19, averaged over the frames of a second, and of VGGish."""
_HIDDEN = 128
"""Width of each LSTM in each direction."""
_JOINT = 64
_CELLS = CELLS_PER_SIDE * CELLS_PER_SIDE


@dataclass(frozen=True, kw_only=True)
class Features:
    """A batch of clips: `visual` [B, T, 7, 7, 512] and `audio` [B, T, 128] float32, `labels` [B, T] int64 classes.

    For matching, `visual` may be the mean over the cells [B, T, 1, 1, 512]. `clips` [B] int64 is the class of each
    clip, for weak labels.
    """

    visual: Tensor
    audio: Tensor
    labels: Tensor
    clips: Tensor | None = None
    background: int = 28
    """Class of the seconds without an event, the last one."""


class EventMethod(PublishedModel):
    """A network on features per second."""

    predicts = "events"
    usage = "Valid with it: avloc localize --events, and avloc eval --testset ave, ave-weak or ave-match."

    @abstractmethod
    def losses(self, features: Features) -> dict[str, Tensor]:
        """Named loss terms, each the mean over the batch."""

    def forward(self, features: Features) -> dict[str, Tensor]:
        """`losses`, for `DistributedDataParallel`."""
        return self.losses(features)


def build_network(config: ModelConfig) -> EventMethod:
    """The network of a configuration, with initial weights; a UsageError for a localizer or an unknown method."""
    found = any_class(config.method)
    if not issubclass(found, EventMethod):
        raise UsageError(f"{config.method} predicts {found.predicts}, not events; valid: {', '.join(EVENT_SPECS)}")
    return found(config)


@dataclass(frozen=True)
class Prediction:
    """Output of AVE: `scores` [B, T, K] logits, `probabilities` [B, T, K] their softmax over the classes.

    `attention` [B, T, 7, 7]: weights of the cells; those of a second sum to 1.
    """

    scores: Tensor
    probabilities: Tensor
    attention: Tensor


class AVE(EventMethod):
    """The network of AVE's authors, plain or DMRN; `weak` changes only the loss.

    Args:
        config: `own` has `classes`, the number of events without background; `dmrn`, `weak` and `cross_entropy`.
    """

    head = ("L1.", "L2.", "U_v.", "U_a.")
    """Prefixes of the parameters that differ between the plain network and DMRN."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        own = config.own
        self.lstm_audio = nn.LSTM(AUDIO_CHANNELS, _HIDDEN, batch_first=True, bidirectional=True)
        self.lstm_video = nn.LSTM(VISUAL_CHANNELS, _HIDDEN, batch_first=True, bidirectional=True)
        self.affine_audio = nn.Linear(AUDIO_CHANNELS, VISUAL_CHANNELS)
        self.affine_video = nn.Linear(VISUAL_CHANNELS, VISUAL_CHANNELS)
        self.affine_v = nn.Linear(VISUAL_CHANNELS, _CELLS, bias=False)
        self.affine_g = nn.Linear(VISUAL_CHANNELS, _CELLS, bias=False)
        self.affine_h = nn.Linear(_CELLS, 1, bias=False)
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
        """Audio-guided visual attention.

        Returns:
            [B, T, 512] mean of the cells, weighted by the attention, and the attention [B, T, 7, 7].
        """
        cells_BTPC = visual.flatten(2, 3)
        visual_BTPH = self.affine_v(F.relu(self.affine_video(cells_BTPC)))
        audio_BTP = self.affine_g(F.relu(self.affine_audio(audio)))
        # There are as many hidden units as cells. The paper's formula adds the audio term to the units; the authors'
        # code adds it to the cells, and published weights expect that.
        scores_BTP = self.affine_h(torch.tanh(visual_BTPH + audio_BTP[..., None])).squeeze(-1)
        attention_BTP = scores_BTP.softmax(-1)
        attended = torch.einsum("btp,btpc->btc", attention_BTP, cells_BTPC)
        return attended, attention_BTP.unflatten(-1, (CELLS_PER_SIDE, CELLS_PER_SIDE))

    def encode_time(self, attended: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [B, T, 256] of the bidirectional LSTMs, forward then backward: audio, visual."""
        return self.lstm_audio(audio)[0], self.lstm_video(attended)[0]

    def _classify(self, audio: Tensor, visual: Tensor) -> Tensor:
        if self.config.own["dmrn"]:
            shared = (self.U_v(visual) + self.U_a(audio)) / 2
            joint = (torch.tanh(audio + shared) + torch.tanh(visual + shared)) / 2
        else:
            joint = F.relu(self.L1(F.relu(torch.cat((audio, visual), -1))))
        scores: Tensor = self.L2(joint)
        return scores

    def predict(self, visual: Tensor, audio: Tensor) -> Prediction:
        """Predict the event of every second from `Features.visual` and `audio`, for clips of any length."""
        attended, attention = self.attend(visual, audio)
        scores = self._classify(*self.encode_time(attended, audio))
        return Prediction(scores, scores.softmax(-1), attention)

    def losses(self, features: Features) -> dict[str, Tensor]:
        """Term `event`.

        The authors apply a multi-label soft margin loss, which expects logits, to probabilities: it cannot fall below
        0.680, and its gradients are small. `cross_entropy` uses the cross-entropy of the logits instead. With `weak`,
        the scores of the clip (`of_clip`) and its class are compared, otherwise those of every second.
        """
        scores, labels = self.predict(features.visual, features.audio).scores, features.labels
        if self.config.own["weak"]:
            assert features.clips is not None
            scores, labels = of_clip(scores), features.clips
        if self.config.own["cross_entropy"]:
            return {"event": F.cross_entropy(scores.flatten(0, -2), labels.flatten())}
        truth = F.one_hot(labels, scores.shape[-1]).to(scores)
        return {"event": F.binary_cross_entropy_with_logits(scores.softmax(-1), truth)}

    @classmethod
    def from_published(cls, files: Mapping[str, Mapping[str, Any]]) -> Published | None:
        """The parameters of a pickled module; `weak` is taken from the file name, as the tensors are the same."""
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
    """Scores of whole clips [B, K]: the maximum of [B, T, K] over the seconds."""
    return scores.amax(-2)


def _residual() -> nn.Sequential:
    width = 2 * _HIDDEN
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
