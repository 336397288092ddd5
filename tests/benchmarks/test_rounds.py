"""How rounds become figures: which ones count, and what is compared with what."""

from benchmarks.rounds import Figure, figure, quiet_rounds, ratio


def test_the_rounds_in_which_all_peers_were_cheap_count() -> None:
    rounds = {"cheap": [1.0, 1.1, 3.0, 1.0], "dear": [50.0, 51.0, 52.0, 90.0]}
    assert quiet_rounds(rounds) == [0, 1]


def test_a_dear_peer_does_not_drown_a_cheap_ones_noise() -> None:
    rounds = {"cheap": [1.0, 2.0], "dear": [101.0, 100.0]}
    assert quiet_rounds(rounds) == [0]


def test_half_of_an_odd_number_is_rounded_up() -> None:
    assert quiet_rounds({"one": [3.0, 1.0, 2.0]}) == [1, 2]


def test_no_rounds_are_no_quiet_rounds() -> None:
    assert quiet_rounds({}) == []


def test_rounds_that_a_peer_did_not_finish_do_not_count() -> None:
    assert quiet_rounds({"one": [1.0, 1.0, 1.0], "other": [1.0, 1.0]}) == [0]


def test_a_round_without_cost_is_possible() -> None:
    assert quiet_rounds({"one": [0.0, 5.0]}) == [0]


def test_a_figure_is_the_median_and_the_spread_of_the_quiet_rounds() -> None:
    assert figure([5.0, 99.0, 7.0, 6.0], [0, 2, 3]) == Figure(6.0, 5.0, 7.0)


def test_a_ratio_compares_within_each_round() -> None:
    assert ratio([2.0, 30.0], [1.0, 10.0], [0, 1]) == Figure(2.5, 2.0, 3.0)


def test_a_ratio_to_nothing_is_zero() -> None:
    assert ratio([2.0], [0.0], [0]) == Figure(0.0, 0.0, 0.0)
