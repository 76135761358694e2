"""Reading features: incomplete hints are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from avloc.ave.event_table import EventTable
from avloc.ave.features import EventSet
from avloc.errors import Refused


def test_unfinished_features_are_refused(folder, store, tmp_path):
    table = EventTable.of(store)
    more = replace(table.rows[0], clip="lost")
    with pytest.raises(Refused, match="1 of 61 clips have no hints of vggish, first lost"):
        EventSet(store, table, [*table.rows[:60], more])
