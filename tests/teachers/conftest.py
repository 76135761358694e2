"""A store of clips with sounds and pictures for teachers, and a machine without a network."""

from __future__ import annotations

import socket

import pytest

from avloc.store import Store
from tests.teacher_makers import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("teachers") / "store", 7)


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt to connect to a host fails the test."""

    def refuse(*address: object) -> None:
        raise AssertionError(f"tried to connect: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
