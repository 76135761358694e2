"""The face detector: the published layout, geometry against loops, and the cascade with networks of known output."""

from __future__ import annotations

import json
import os
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor

from avloc.errors import WeightsError
from tests.recipe.faces import (
    SMALLEST,
    FaceNetworks,
    build_networks,
    cell_boxes,
    find_faces,
    inside,
    levels,
    load_faces,
    non_maximum,
    shifted,
    squares,
    write_faces,
)
from tests.recipe_makers import SHARED

FILES = ("pnet.pt", "rnet.pt", "onet.pt")
PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {
    "pnet.pt": {
        "conv1": (10, 3, 3, 3),
        "conv2": (16, 10, 3, 3),
        "conv3": (32, 16, 3, 3),
        "conv4_1": (2, 32, 1, 1),
        "conv4_2": (4, 32, 1, 1),
    },
    "rnet.pt": {
        "conv1": (28, 3, 3, 3),
        "conv2": (48, 28, 3, 3),
        "conv3": (64, 48, 2, 2),
        "dense4": (128, 576),
        "dense5_1": (2, 128),
        "dense5_2": (4, 128),
    },
    "onet.pt": {
        "conv1": (32, 3, 3, 3),
        "conv2": (64, 32, 3, 3),
        "conv3": (64, 64, 3, 3),
        "conv4": (128, 64, 2, 2),
        "dense5": (256, 1152),
        "dense6_1": (2, 256),
        "dense6_2": (4, 256),
        "dense6_3": (10, 256),
    },
}
"""Weights of the published files; each has a bias, and a PReLU of as many slopes follows each that is no head."""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files with random weights."""
    torch.manual_seed(0)
    for name, network in zip(FILES, build_networks(), strict=True):
        torch.save(network.state_dict(), tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def published() -> FaceNetworks:
    folder = Path(os.environ.get("AVLOC_WEIGHTS") or SHARED / "weights")
    if not all((folder / name).is_file() for name in FILES):
        pytest.skip(f"{', '.join(FILES)} of facenet-pytorch are not in $AVLOC_WEIGHTS")
    return load_faces(folder)


@pytest.mark.parametrize("number", range(3), ids=FILES)
def test_the_layout_is_the_published_one(number):
    expected = {}
    for name, shape in PUBLISHED[FILES[number]].items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        if "_" not in name:
            expected[f"prelu{name[-1]}.weight"] = shape[:1]
    state = build_networks()[number].state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == expected


@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 24), (40, 31)])
def test_the_proposal_network_predicts_for_each_second_cell_of_12_pixels(height, width):
    """A cell that the picture's odd last row or column completes is predicted too: pooling rounds up."""
    scores, offsets = build_networks().proposal(torch.rand(1, 3, height, width))
    rows, columns = ((side - 11) // 2 + 1 for side in (height, width))
    assert scores.shape == (1, rows, columns)
    assert offsets.shape == (1, 4, rows, columns)


@pytest.mark.parametrize(("number", "side", "dense"), [(1, 24, "dense4"), (2, 48, "dense5")])
def test_dense_layers_read_columns_before_rows(number, side, dense):
    """The published networks were trained on transposed pictures: their first dense layer has that order."""
    network = build_networks()[number].eval()
    given = {}
    layers = dict(network.named_modules())
    last = layers[f"prelu{len(network.pools)}"]
    last.register_forward_hook(lambda _module, _inputs, out: given.update(map=out[0].detach()))
    layers[dense].register_forward_hook(lambda _module, inputs, _out: given.update(vector=inputs[0][0]))
    scores, offsets = network(torch.rand(1, 3, side, side) * 2 - 1)
    channels, rows, columns = given["map"].shape
    vector = [given["map"][c, y, x] for x in range(columns) for y in range(rows) for c in range(channels)]
    assert torch.equal(given["vector"], torch.stack(vector))
    assert scores.shape == (1,)
    assert offsets.shape == (1, 4)


def test_a_stage_is_convolutions_prelus_pools_and_a_softmax():
    torch.manual_seed(1)
    network = build_networks().proposal
    weights = network.state_dict()
    x = torch.rand(1, 3, 31, 44) * 2 - 1
    scores, offsets = network(x)
    for layer in "123":
        x = F.conv2d(x, weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"])
        x = torch.where(x > 0, x, x * weights[f"prelu{layer}.weight"][:, None, None])
        if layer == "1":
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=-torch.inf)
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
    logits = torch.einsum("kc,nchw->nkhw", weights["conv4_1.weight"][:, :, 0, 0], x)
    logits += weights["conv4_1.bias"][:, None, None]
    moves = torch.einsum("kc,nchw->nkhw", weights["conv4_2.weight"][:, :, 0, 0], x)
    moves += weights["conv4_2.bias"][:, None, None]
    torch.testing.assert_close(scores, torch.sigmoid(logits[:, 1] - logits[:, 0]))
    torch.testing.assert_close(offsets, moves)


def test_files_give_the_networks_back(folder):
    torch.manual_seed(0)
    expected, image = build_networks(), torch.rand(1, 3, 48, 48)
    for read, written in zip(load_faces(folder)[1:], expected[1:], strict=True):
        side = 24 if read.last == 4 else 48
        assert torch.equal(read(image[..., :side, :side])[0], written(image[..., :side, :side])[0])


@pytest.mark.parametrize("damage", ["missing", "no weights", "another network's"])
def test_files_that_are_not_the_weights_are_named(damage, folder):
    path = folder / "rnet.pt"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"none" if damage == "no weights" else (folder / "pnet.pt").read_bytes())
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_faces(folder)


corner = st.tuples(st.integers(-20, 20), st.integers(-20, 20))
box = st.tuples(corner, st.integers(1, 20), st.integers(1, 20)).map(
    lambda row: (row[0][0], row[0][1], row[0][0] + row[1], row[0][1] + row[2])
)
scored = st.lists(st.tuples(box, st.integers(0, 5)), max_size=12)
some_boxes = st.lists(box, min_size=1, max_size=6)


def overlap(one, other, over_smaller) -> Fraction:
    """By counting pixels."""
    first, second = ({(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (one, other))
    whole = min(len(first), len(second)) if over_smaller else len(first | second)
    return Fraction(len(first & second), whole)


@given(scored, st.sampled_from([Fraction(1, 2), Fraction(3, 4)]), st.booleans())
def test_suppression_keeps_the_best_of_those_that_overlap(rows, most, over_smaller):
    boxes = np.array([row[0] for row in rows], dtype=float).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], dtype=float)
    kept = non_maximum(boxes, scores, float(most), over_smaller=over_smaller).tolist()
    expected = []
    for index in sorted(range(len(rows)), key=lambda i: -rows[i][1]):
        if all(overlap(rows[index][0], rows[other][0], over_smaller) <= most for other in expected):
            expected.append(index)
    assert kept == expected
    again = non_maximum(boxes[kept], scores[kept], float(most), over_smaller=over_smaller)
    assert again.tolist() == list(range(len(kept)))


@given(some_boxes, st.data())
def test_offsets_are_in_widths_and_heights(rows, data):
    moves = data.draw(st.lists(st.tuples(*[st.integers(-8, 8)] * 4), min_size=len(rows), max_size=len(rows)))
    expected = []
    for (x0, y0, x1, y1), (a, b, c, d) in zip(rows, moves, strict=True):
        wide, high = x1 - x0, y1 - y0
        expected.append([x0 + a / 8 * wide, y0 + b / 8 * high, x1 + c / 8 * wide, y1 + d / 8 * high])
    assert shifted(np.array(rows, float), np.array(moves) / 8).tolist() == expected


@given(some_boxes)
def test_squares_have_the_centre_and_the_longer_side(rows):
    for (x0, y0, x1, y1), (a, b, c, d) in zip(rows, squares(np.array(rows, float)).tolist(), strict=True):
        assert c - a == d - b == max(x1 - x0, y1 - y0)
        assert (a + c, b + d) == (x0 + x1, y0 + y1)


@given(some_boxes)
def test_boxes_without_a_pixel_of_the_picture_are_left_out(rows):
    size = (16, 11)
    expected = [any(x0 <= x < x1 and y0 <= y < y1 for x in range(16) for y in range(11)) for x0, y0, x1, y1 in rows]
    assert inside(np.array(rows, float), size).tolist() == expected


@given(st.integers(16, 900), st.integers(16, 900))
def test_the_pyramid_goes_from_the_smallest_face_to_the_shorter_side(width, height):
    found = levels((width, height))
    assert min(found[0]) == pytest.approx(12 / SMALLEST, abs=0.5)
    assert 12 <= min(found[-1]) <= 12 / 0.709 + 1
    for level in found:
        assert level[0] / level[1] == pytest.approx(width / height, rel=0.05)
    for larger, smaller in pairwise(found):
        assert min(smaller) == pytest.approx(0.709 * min(larger), abs=1)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(12, 300), st.integers(12, 300))
def test_a_cell_covers_its_share_of_the_level(row, column, wide, high):
    size = (480, 320)
    ((x0, y0, x1, y1),) = cell_boxes(np.array([row]), np.array([column]), (wide, high), size).tolist()
    assert x0 / size[0] == pytest.approx(2 * column / wide)
    assert y0 / size[1] == pytest.approx(2 * row / high)
    assert x1 / size[0] == pytest.approx((2 * column + 12) / wide)
    assert y1 / size[1] == pytest.approx((2 * row + 12) / high)


class Template(torch.nn.Module):
    """Finds a bright red square on black, of half the side of the box: its score falls with the squared error."""

    def __init__(self, side: int, moves: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)) -> None:
        super().__init__()
        self.side, self.moves = side, torch.tensor(moves)
        self.template = torch.full((1, 3, side, side), -1.0)
        self.template[:, 0, side // 4 : -side // 4, side // 4 : -side // 4] = 1

    def forward(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        products = F.conv2d(images_N3HW, self.template, stride=2)[:, 0]
        squared = F.conv2d(images_N3HW.square(), torch.ones_like(self.template), stride=2)[:, 0]
        scores = 1 - 2 * (squared - 2 * products + self.template.numel()) / self.template.numel()
        offsets = self.moves[None, :, None, None].expand(len(scores), 4, *scores.shape[1:])
        if self.side > 12:
            return scores[:, 0, 0], offsets[:, :, 0, 0]
        return scores, offsets


def cascade(last: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)) -> FaceNetworks:
    return FaceNetworks(Template(12), Template(24), Template(48, last))


def marked(size: tuple[int, int], *corners: tuple[int, int], side: int) -> Image.Image:
    picture = Image.new("RGB", size)
    for x, y in corners:
        picture.paste((255, 0, 0), (x, y, x + side, y + side))
    return picture


@pytest.mark.parametrize(
    ("size", "corner", "side"),
    [((320, 200), (220, 40), 23), ((200, 320), (30, 210), 46), ((300, 280), (90, 70), 91), ((96, 64), (70, 40), 5)],
)
def test_a_square_is_found_where_it_is(size, corner, side):
    (x0, y0, x1, y1, score), *others = find_faces(marked(size, corner, side=side), cascade())
    assert not others
    expected = corner[0] - side / 2, corner[1] - side / 2, corner[0] + 1.5 * side, corner[1] + 1.5 * side
    assert (x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1]) == pytest.approx(expected, abs=0.2 * side)
    assert 0.7 < score <= 1


def test_several_are_found_the_best_one_first():
    found = find_faces(marked((320, 200), (40, 60), (150, 30), (250, 100), side=32), cascade())
    assert [face[4] for face in found] == sorted((face[4] for face in found), reverse=True)
    centres = sorted((320 * (x0 + x1) / 2, 200 * (y0 + y1) / 2) for x0, y0, x1, y1, _ in found)
    assert np.array(centres) == pytest.approx(np.array([(56, 76), (166, 46), (266, 116)]), abs=7)


class Fires(torch.nn.Module):
    """A proposal network that finds a face in given cells of each level, and moves them."""

    def __init__(self, cells: list[tuple[int, int]], moves: list[tuple[float, ...]]) -> None:
        super().__init__()
        self.cells, self.moves = cells, moves

    def forward(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = ((side - 12) // 2 + 1 for side in images_N3HW.shape[2:])
        scores, offsets = torch.zeros(1, rows, columns), torch.zeros(1, 4, rows, columns)
        for (row, column), move in zip(self.cells, self.moves, strict=True):
            if row < rows and column < columns:
                scores[0, row, column] = 1
                offsets[0, :, row, column] = torch.tensor(move)
        return scores, offsets


class Records(torch.nn.Module):
    """Keeps its last input; everything is a face."""

    def forward(self, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        self.given = images_N3HW
        return torch.ones(len(images_N3HW)), torch.zeros(len(images_N3HW), 4)


@pytest.mark.parametrize(("cell", "move"), [((60, 220), (0.5, 0.0, 0.5, 0.0)), ((0, 10), (-0.25, -0.5, 0.0, -0.5))])
def test_crops_are_squares_of_the_picture_and_black_beyond_its_edge(cell, move):
    width, height = 320, 200
    y_HW, x_HW = np.mgrid[:height, :width]
    pixels = np.stack([255 * x_HW / width, 255 * y_HW / height, np.full((height, width), 128)], 2).astype(np.uint8)
    last = Records()
    find_faces(Image.fromarray(pixels), FaceNetworks(Fires([cell], [move]), Records(), last))
    scale, (row, column) = height / 288, cell  # of the first level; the same cell of others covers another part
    x0, y0, x1, y1 = (
        scale * (start + part * 12)
        for start, part in zip((2 * column, 2 * row, 2 * column + 12, 2 * row + 12), move, strict=True)
    )
    half = max(x1 - x0, y1 - y0) / 2
    errors = []
    for crop_3HW in last.given.numpy():
        total = []
        for line in range(4, 48, 13):
            for place in range(4, 48, 13):
                x = (x0 + x1) / 2 - half + (place + 0.5) / 48 * 2 * half
                y = (y0 + y1) / 2 - half + (line + 0.5) / 48 * 2 * half
                within = 0 <= x < width and 0 <= y < height
                expected = (255 * x / width, 255 * y / height, 128) if within else (0, 0, 0)
                total.append(np.abs(crop_3HW[:, line, place] * 128 + 127.5 - expected).max())
        errors.append(max(total))
    assert min(errors) < 3, "no crop is the one of the first level"


def test_the_last_offsets_move_the_box_that_is_returned():
    picture = marked((320, 200), (150, 80), side=32)
    ((*plain, _),) = find_faces(picture, cascade())
    ((*moved, _),) = find_faces(picture, cascade((0.25, 0.125, -0.25, 0.0)))
    wide, high = plain[2] - plain[0], plain[3] - plain[1]
    assert moved == pytest.approx([plain[0] + wide / 4, plain[1] + high / 8, plain[2] - wide / 4, plain[3]], abs=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_a_plain_picture_of_any_mode_has_no_face(mode):
    assert find_faces(Image.new(mode, (40, 30)), cascade()) == []


@pytest.mark.parametrize("seed", range(3))
def test_any_offsets_give_boxes_inside_the_picture(seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    cells = [tuple(cell) for cell in rng.integers(0, 60, (40, 2)).tolist()]
    networks = FaceNetworks(Fires(cells, rng.normal(0, 1, (40, 4)).tolist()), *build_networks()[1:])
    for network, layer in zip(networks[1:], ("dense5_", "dense6_"), strict=True):
        parts = dict(network.named_parameters())
        with torch.no_grad():
            parts[f"{layer}1.bias"].copy_(torch.tensor([-3.0, 3.0]))
            parts[f"{layer}2.weight"].mul_(20)
    pixels = rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)
    found = find_faces(Image.fromarray(pixels), networks)
    assert found
    for x0, y0, x1, y1, score in found:
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        assert 0.7 < score <= 1


def test_faces_of_pictures_are_written_by_path(tmp_path):
    (tmp_path / "images").mkdir()
    marked((320, 200), (150, 80), side=32).save(tmp_path / "images" / "square.png")
    Image.new("RGB", (320, 200)).save(tmp_path / "images" / "plain.png")
    out = write_faces(tmp_path, ["images/square.png", "images/plain.png"], cascade(), tmp_path / "faces.json")
    found = json.loads(out.read_text())
    assert list(found) == ["images/square.png", "images/plain.png"]
    assert found["images/plain.png"] == []
    ((*face, score),) = found["images/square.png"]
    assert face == pytest.approx([134 / 320, 64 / 200, 198 / 320, 128 / 200], abs=0.05)
    assert 0.7 < score <= 1


def test_the_published_networks_find_the_astronaut(published):
    """Of scikit-image; also in the mirror, small and at the side, and never upside down."""
    data = pytest.importorskip("skimage.data")
    picture = Image.fromarray(data.astronaut())
    ((x0, y0, x1, y1, score),) = [face for face in find_faces(picture, published) if face[4] > 0.95]
    assert (x0, y0, x1, y1) == pytest.approx((0.36, 0.13, 0.52, 0.35), abs=0.03)
    assert score > 0.99
    (mirrored,) = [face for face in find_faces(ImageOps.mirror(picture), published) if face[4] > 0.95]
    assert mirrored[:4] == pytest.approx((1 - x1, y0, 1 - x0, y1), abs=0.03)
    small = Image.new("RGB", (400, 240), (90, 120, 90))
    small.paste(picture.resize((120, 120)), (260, 100))
    (found,) = [face for face in find_faces(small, published) if face[4] > 0.95]
    assert found[:4] == pytest.approx(
        ((260 + 120 * x0) / 400, (100 + 120 * y0) / 240, (260 + 120 * x1) / 400, (100 + 120 * y1) / 240), abs=0.03
    )
    assert not [face for face in find_faces(ImageOps.flip(picture), published) if face[4] > 0.95]


def test_the_published_output_network_separates_faces_from_other_pieces(published):
    """100 faces and 100 other pieces of scikit-image, 25 x 25 pixels, grey; the output network on all of them."""
    pieces = np.load(pytest.importorskip("skimage.data").__path__[0] + "/lfw_subset.npy")
    images = [Image.fromarray((255 * piece).round().astype(np.uint8)).convert("RGB") for piece in pieces]
    stacked = np.stack([np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR)) for image in images])
    with torch.no_grad():
        scores, _ = published.output((torch.from_numpy(stacked).permute(0, 3, 1, 2).float() - 127.5) / 128)
    assert scores[:100].gt(0.7).float().mean() > 0.9
    assert scores[100:].gt(0.7).float().mean() < 0.1
