"""Which ports a stack chooses."""

from __future__ import annotations

import socket
from dataclasses import asdict
from pathlib import Path

import pytest

from ops.embedded import ports
from ops.exits import CommandError

WANTED = ports.natural(8700)


def test_free_natural_ports_are_taken_as_they_are() -> None:
    # when
    chosen, moved = ports.choose(WANTED, {}, lambda _: True)

    # then
    assert chosen == WANTED
    assert moved == {}
    assert len(set(asdict(chosen).values())) == len(asdict(chosen))


def test_a_taken_port_moves_to_the_next_free_one_and_is_named() -> None:
    # when
    chosen, moved = ports.choose(WANTED, {}, lambda port: port not in {8701, 8702})

    # then
    assert chosen.kafka == 8703
    assert moved["kafka"] == (8701, 8703)
    assert len(set(asdict(chosen).values())) == len(asdict(chosen))


def test_a_remembered_port_is_used_again_once_it_is_free() -> None:
    # given
    remembered = {"kafka": 9901}

    # when
    chosen, moved = ports.choose(WANTED, remembered, lambda _: True)
    detour, moved_away = ports.choose(WANTED, remembered, lambda port: port != 9901)

    # then
    assert chosen.kafka == 9901
    assert moved == {}
    assert detour.kafka == 9902
    assert moved_away == {"kafka": (9901, 9902)}


def test_the_gateways_port_is_the_users_choice() -> None:
    # when
    chosen, _ = ports.choose(ports.natural(9000), {"gateway": 8700}, lambda _: True)

    # then
    assert chosen.gateway == 9000


def test_no_free_port_at_all_is_a_sentence() -> None:
    with pytest.raises(CommandError, match="no free port"):
        ports.choose(WANTED, {}, lambda _: False)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind((ports.LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not ports.is_free(port)
    assert ports.is_free(port)


def test_the_ports_of_the_first_start_are_kept(tmp_path: Path) -> None:
    # given
    ports.remember(tmp_path, WANTED)

    # when
    ports.remember(tmp_path, ports.natural(9000))

    # then
    assert ports.load(tmp_path) == asdict(WANTED)
