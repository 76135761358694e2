"""The batches of the training loop."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from avloc.distributed import Peers
from avloc.train.loop import EpochBatches


@given(st.integers(2, 30), st.integers(2, 12), st.integers(0, 5), st.integers(1, 4))
def test_every_epoch_is_a_permutation_in_full_batches(clips, batch, seed, epochs):
    stream = list(EpochBatches(clips, batch, seed, epochs))
    size = min(clips, batch)
    assert len(stream) == epochs * (clips // size)
    assert all(len(positions) == size for positions in stream)
    steps = clips // size
    for epoch in range(epochs):
        seen = [place for positions in stream[epoch * steps : (epoch + 1) * steps] for place in positions]
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(range(clips))


@given(st.integers(2, 30), st.integers(2, 12), st.integers(0, 5), st.data())
def test_the_order_can_resume_at_any_step(clips, batch, seed, data):
    whole = list(EpochBatches(clips, batch, seed, 3))
    first = data.draw(st.integers(0, len(whole)))
    rest = EpochBatches(clips, batch, seed, 3, first_step=first)
    assert list(rest) == whole[first:]
    assert len(rest) == len(whole) - first


def test_epochs_and_seeds_differ():
    one, other = EpochBatches(50, 10, 1, 2), EpochBatches(50, 10, 2, 2)
    assert list(one)[:5] != list(one)[5:]
    assert list(one) != list(other)


@given(st.integers(2, 40), st.integers(2, 12), st.integers(1, 5))
def test_the_shares_of_all_processes_make_the_batch(clips, batch, size):
    whole = list(EpochBatches(clips, batch, 3, 2))
    parts = [list(EpochBatches(clips, batch, 3, 2, peers=Peers(rank, size))) for rank in range(size)]
    assert [[*chain(*rows)] for rows in zip(*parts, strict=True)] == whole
    for rows in zip(*parts, strict=True):
        assert max(map(len, rows)) - min(map(len, rows)) <= 1
