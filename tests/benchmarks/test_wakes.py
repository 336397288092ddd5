"""How pairs of starts become figures, and who is measured by an item that has subjects of its own."""

from dataclasses import replace

import pytest

from benchmarks.__main__ import measured
from benchmarks.peers import PEERS
from benchmarks.wakes import PROCESS, WAKE, added


def test_what_is_added_is_compared_within_each_pair() -> None:
    sample = added([0.1, 1.0, 0.2], [0.11, 1.03, 0.22])
    assert sample["added_p50_s"] == pytest.approx(0.02)
    assert sample["added_p99_s"] == pytest.approx(0.03)
    assert sample["by_hand_p50_s"] == pytest.approx(0.2)
    assert sample["through_p50_s"] == pytest.approx(0.22)


def test_a_pair_in_which_the_hand_was_slower_counts_as_it_was() -> None:
    assert added([0.5], [0.4])["added_p50_s"] == pytest.approx(-0.1)


def test_an_item_about_moorage_alone_is_left_out_where_only_others_are_asked_for() -> None:
    item = replace(WAKE, own=(PROCESS,))
    assert measured(item, [peer for peer in PEERS if peer.name != "moorage"]) == []
    assert measured(item, PEERS) == [PROCESS]
