"""Imported hints: arrays that are not what they claim."""

from __future__ import annotations

import struct

import pytest

from avloc.distill.imported import read_hint
from avloc.errors import InputError


@pytest.mark.parametrize("shape", ["(1152921504606846976,)", "(1099511627776, 1099511627776)", "(-1,)"])
def test_an_array_that_claims_an_exabyte_is_refused(tmp_path, shape):
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
    with pytest.raises(InputError, match=r"a\.npy (is not a readable array|holds)"):
        read_hint([tmp_path / "a.npy"], (4,))
