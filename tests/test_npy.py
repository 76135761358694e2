"""`.npy` files: arrays as NumPy reads them, or ValueError for anything else."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from avloc.npy import parse_npy


def with_header(text: str, version: tuple[int, int] = (1, 0), payload: bytes = bytes(64)) -> bytes:
    """A `.npy` file with any text as its header."""
    header = text.encode("latin1" if version < (3, 0) else "utf8")
    return (
        b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(header)) + header + payload
    )


def header(descr: object = "<f4", fortran_order: object = False, shape: object = (2, 2)) -> str:
    return repr({"descr": descr, "fortran_order": fortran_order, "shape": shape})


@given(
    arrays.arrays(
        st.sampled_from(["<f4", ">f8", "<f2", "|b1", "|u1", ">i2", "<c8", "<U3", "<M8[s]"]),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.sampled_from([(1, 0), (2, 0), None]),
    st.booleans(),
)
def test_arrays_are_read_as_numpy_reads_them(value, version, transposed):
    value = np.asfortranarray(value) if transposed else value
    file = io.BytesIO()
    np.lib.format.write_array(file, value, version)
    read = parse_npy(file.getvalue())
    assert (read.dtype, read.shape) == (value.dtype, value.shape)
    np.testing.assert_array_equal(read, value)
    with pytest.raises(ValueError, match=r"shape|header"):
        parse_npy(file.getvalue()[: -1 if value.size else 20])


def test_version_3_is_read():
    file = with_header(header(), (3, 0), np.arange(4, dtype="<f4").tobytes())
    np.testing.assert_array_equal(parse_npy(file), [[0, 1], [2, 3]])


BAD = {
    "type in a tuple": header(descr=("<f4",)),
    "type with a shape": header(descr=("<f4", (2,))),
    "no type": header(descr=7),
    "empty fields": header(descr=[()]),
    "objects": header(descr="|O"),
    "nothing in the type": header(descr="|S0"),
    "list as a key": "{[]: 1}",
    "set of a list": "{[]}",
    "sum": "{'a': 1} + 1",
    "truth as a side": header(shape=(True, 2)),
    "negative side": header(shape=(-1, 2)),
    "overflow": header(shape=(0, 1 << 70)),
    "overflow of the product": header(shape=(60,) * 30),
    "too many dimensions": header(shape=(1,) * 70),
    "no tuple": header(shape=4),
    "no truth": header(fortran_order=1),
    "missing key": "{'descr': '<f4', 'shape': (2, 2)}",
    "nested": "(" * 4000,
    "nested signs": "-" * 9000 + "1",
    "nested sums": "1+" * 4000 + "1",
    "unfinished": "{'descr': '<f4",
    "NUL": "{'descr': '\0'}",
    "long": header() + " " * 60_000,
    "nothing": "",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_header_is_a_value_error(kind):
    with pytest.raises(ValueError, match=r"header|shape|Object|itemsize|dimension"):
        parse_npy(with_header(BAD[kind]))


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (4, 0), (255, 255)])
def test_an_unknown_version_is_refused(version):
    with pytest.raises(ValueError, match="version"):
        parse_npy(with_header(header(), version))


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 9),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.sampled_from(["<f4", "|b1", "<i8", "|O", "<U0", "a3", "f4,i2", "M8[s]", "(2,)f4", "descr", "shape"]),
)
VALUES = st.recursive(
    ATOMS,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.lists(parts, max_size=3).map(tuple),
        st.dictionaries(ATOMS, parts, max_size=3),
    ),
    max_leaves=8,
)
DICTIONARIES = st.builds(header, VALUES | st.just("<f4"), VALUES | st.booleans(), VALUES | st.just((2, 2)))
PUNCTUATION = st.text("{}[]()'\":, \\\n\0L1-+*jef<", max_size=60)


@settings(max_examples=500)
@given(
    st.one_of(DICTIONARIES, VALUES.map(repr), PUNCTUATION, st.text(st.characters(max_codepoint=255), max_size=60)),
    st.sampled_from([(1, 0), (2, 0)]),
    st.tuples(st.integers(0, 200), st.integers(0, 255)) | st.none(),
)
def test_no_header_gives_anything_but_an_array_or_a_value_error(text, version, change):
    data = bytearray(with_header(text.encode("latin1", "replace").decode("latin1"), version))
    if change and change[0] < len(data):
        data[change[0]] = change[1]
    try:
        value = parse_npy(bytes(data))
    except ValueError:
        return
    assert value.nbytes <= len(data)
