"""Boxes in XML files: Flickr-SoundNet's, Pascal VOC's, and what is refused."""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np
import pytest

from avloc.annotations.boxes import Annotation, Annotations, read_annotations
from avloc.errors import InputError, UsageError


def test_flickr_xml_is_read_by_structure(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "12.xml").write_text(
        "<root><annotator><bbox><first/><xmin>10</xmin><ymin>20</ymin><xmax>100</xmax><ymax>128</ymax></bbox>"
        "<note>blurred</note></annotator>"
        "<deep><er><bbox><n>7</n><a> 0 </a><b>64</b><c>256</c><d>192</d></bbox></er></deep>"
        "<bbox>empty</bbox></root>"
    )
    (tmp_path / "sub" / "13.XML").write_text("<root/>")
    (tmp_path / "14.xml").write_text("<root><bbox>")
    read = read_annotations(tmp_path)
    assert read.rule == "consensus"
    np.testing.assert_array_equal(
        read.find("12", PurePath("12.jpg")).boxes, [[10 / 256, 20 / 256, 100 / 256, 0.5], [0, 0.25, 1, 0.75]]
    )
    assert read.find("13", PurePath("13.jpg")).boxes.shape == (0, 4)
    assert read.find("99", PurePath("99.jpg")) is None
    with pytest.raises(InputError, match=r"14\.xml cannot be read"):
        read.find("14", PurePath("14.jpg"))


def _box(*values: object, tag: str = "bbox") -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, values, strict=False))
    return f"<{tag}>{inside}</{tag}>"


def _voc(*boxes: str, width: object = 200, height: object = 100) -> str:
    objects = "".join(f"<object><name>dog</name>{box}</object>" for box in boxes)
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"


_VOC = _box(20, 10, 100, 50, tag="bndbox")


def _read_xml(folder: Path, text: str) -> tuple[Annotations, Annotation]:
    (folder / "1.xml").write_text(text)
    read = read_annotations(folder)
    return read, read.find("1")


@pytest.mark.parametrize(
    "text",
    [
        f"<a><b>{_box('10.0', ' 20.5', '+100', '128.')}</b></a>",
        "<a><b><bbox><name>dog 1</name><a>10</a><b>20.5</b><c>100.0</c><d>128</d></bbox></b></a>",
        "<a><b><BBox><ymax>128</ymax><xmin>10</xmin><ymin>20.5</ymin><xmax>100</xmax><pose>3</pose></BBox></b></a>",
        f'<a xmlns="http://example.org/a">{_box(10, 20.5, 100, 128)}<bbox/></a>',
        _box(10, 20.5, 100, 128),
    ],
)
def test_coordinates_may_be_fractional_and_in_any_order(tmp_path, text):
    read, found = _read_xml(tmp_path, text)
    assert read.rule == "consensus"
    np.testing.assert_allclose(found.boxes, [[10 / 256, 20.5 / 256, 100 / 256, 0.5]])


def test_flickr_boxes_are_kept_as_published(tmp_path):
    _, found = _read_xml(tmp_path, f"<a>{_box(-64, 128, 64, 0)}</a>")
    np.testing.assert_allclose(found.boxes, [[-0.25, 0.5, 0.25, 0]])


def test_pascal_voc_boxes_are_scaled_by_the_size_in_the_file(tmp_path):
    part = f"<object><part><name>head</name>{_box(30, 20, 40, 30, tag='bndbox')}</part>{_VOC}</object>"
    read, found = _read_xml(tmp_path, _voc(_VOC, _box("0", "0.5", "200", "100", tag="bndbox"), part))
    assert read.rule == "union"
    np.testing.assert_allclose(found.boxes, [[0.1, 0.1, 0.5, 0.5], [0, 0.005, 1, 1], [0.1, 0.1, 0.5, 0.5]])


@pytest.mark.parametrize("text", ["<root/>", _voc(), "<a><b><name>nothing</name></b></a>"])
def test_xml_without_objects_gives_no_boxes(tmp_path, text):
    assert _read_xml(tmp_path, text)[1].boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<a><bbox/></a>", "has no box that can be read"),
        ("<a><bbox>nothing</bbox></a>", "has no box that can be read"),
        (_voc(""), "has no box that can be read"),
        ("<annotations><box xtl='1' ytl='2' xbr='3' ybr='4'/></annotations>", "has no box that can be read"),
        ("<annotation><object><polygon><x1>1</x1></polygon></object></annotation>", "has no box that can be read"),
        (f"<a>{_box(1, 2, 30, 40)}<bbox xmin='1'/></a>", "a bbox has no xmin"),
        ("<a><bbox>1 2 30 40</bbox></a>", "a bbox has no xmin"),
        (f"<a>{_box(1, 2, 30)}</a>", "a bbox has no ymax"),
        (f"<a>{_box(1, 2, 30, 'nan')}</a>", "ymax is 'nan'"),
        (f"<a>{_box(1, 2, '1e400', 3)}</a>", "xmax is '1e400'"),
        (f"<a>{_box('', 2, 30, 40)}</a>", "xmin is ''"),
        (f"<a>{_box(1, 2, 30, 40)}{_box(1, 'two', 30, 40)}</a>", "ymin is 'two'"),
        ("<a><bbox><n>7</n><a>1</a><b>2</b><c>30</c><d>nan</d></bbox></a>", "d is 'nan'"),
        (f"<a>{_VOC}</a>", "picture size is missing"),
        (_voc(_VOC, width=0), "picture size is missing"),
        (_voc(_VOC, width="wide"), "width is 'wide'"),
        (_voc(_box(100, 10, 20, 50, tag="bndbox")), "box 100 10 20 50 is not valid in a picture of 200 x 100 pixels"),
        (_voc(_box(-1, 10, 20, 50, tag="bndbox")), "box -1 10 20 50 is not valid"),
        (_voc(_box(1, 10, 201, 50, tag="bndbox")), "box 1 10 201 50 is not valid"),
        (f"<a>{_VOC}{_box(1, 2, 30, 40)}</a>", "boxes of two kinds, bbox and bndbox"),
    ],
)
def test_invalid_box_is_refused_by_name(tmp_path, text, reason):
    """Invalid boxes are never dropped silently."""
    with pytest.raises(InputError, match=rf"annotation 1\.xml cannot be read \(.*{reason}"):
        _read_xml(tmp_path, text)


def test_folder_with_two_xml_formats_is_refused(tmp_path):
    (tmp_path / "2.xml").write_text(_voc(_VOC))
    with pytest.raises(UsageError, match=r"two kinds: bbox in 1\.xml and bndbox in 2\.xml"):
        _read_xml(tmp_path, f"<a>{_box(1, 2, 30, 40)}</a>")


XML = {
    "entities that multiply": '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><a><bbox><x>&b;</x></bbox></a>',
    "an entity that is a file": '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><a><bbox><x>&a;</x></bbox></a>',
    "numbers without end": "<a><bbox>" + f"<x>{'9' * 5_000}</x>" * 4 + "</bbox></a>",
    "numbers beyond floats": "<a><bbox>" + f"<x>{'9' * 400}</x>" * 4 + "</bbox></a>",
    "never closed": "<a>" * 1_000,
}


@pytest.mark.parametrize("case", XML)
def test_malicious_xml_makes_its_clip_unusable(tmp_path, case):
    (tmp_path / "clip.xml").write_text(XML[case])
    (tmp_path / "other.xml").write_text("<a><bbox><x>1</x><x>2</x><x>30</x><x>40</x></bbox></a>")
    found = read_annotations(tmp_path)
    assert found.find("other").boxes.tolist() == [[1 / 256, 2 / 256, 30 / 256, 40 / 256]]
    with pytest.raises(InputError, match=r"clip\.xml cannot be read"):
        found.find("clip")


def test_xml_of_any_depth_is_read(tmp_path):
    box = "<bbox><x>1</x><x>2</x><x>30</x><x>40</x></bbox>"
    (tmp_path / "clip.xml").write_text("<a>" * 50_000 + box + "</a>" * 50_000)
    assert len(read_annotations(tmp_path).find("clip").boxes) == 1
