"""The fault suite tells a state that may have been lost from a false alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.faults.nodes import SETTLES_S, Nodes


class Told(Nodes):
    """Nodes that say what they are told to, at a time that stands still."""

    def __init__(self, count: int) -> None:
        super().__init__(range(count), clock=lambda: self.now)
        self.now = 1000.0
        self.histories: Sequence[str | None] = [None] * count
        """Of each node its history as a primary; None: it is a replica, or does not answer."""

    async def asked(self, at: int, *words: str) -> bytes:
        history = self.histories[at]
        if history is None:
            return b"" if at % 2 else b"role:slave\r\nmaster_replid:other\r\n"
        return f"role:master\r\nmaster_replid:{history}\r\n".encode()


history = st.none() | st.sampled_from(["a", "b", "c"])


@given(st.lists(st.lists(history, min_size=3, max_size=3), min_size=1, max_size=12))
def test_another_history_is_what_may_lose_state(seen: list[list[str | None]]) -> None:
    nodes = Told(3)
    known: frozenset[str] = frozenset()
    changes = 0
    for histories in seen:
        nodes.now += SETTLES_S + 1
        nodes.histories = histories
        found = frozenset(each for each in histories if each is not None)
        changed = bool(found) and bool(known) and found != known
        known, changes = found or known, changes + changed
        assert asyncio.run(nodes.look()) is changed
        assert nodes.successions == changes
        assert nodes.may_have_lost() is (changed or not known)
        nodes.now += SETTLES_S
        assert nodes.may_have_lost() is (not known), "a minute later it is a false alarm"


def test_servers_of_others_tell_nothing() -> None:
    nodes = Nodes()
    assert asyncio.run(nodes.look()) is False
    assert nodes.may_have_lost()
