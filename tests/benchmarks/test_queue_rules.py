"""What the rules of the queue are for, on a small stream: few normal texts, many patterns, nothing that stays for ever."""

import pytest
from queue_rules import ARMS, PATTERNS, simulate


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], dict[str, float]]:
    return {arm: simulate(*arm, arrivals=1600, size=100, seed=0) for arm in ARMS}


def test_first_in_first_out_holds_what_comes(found: dict[tuple[str, str], dict[str, float]]) -> None:
    fifo = found["fifo", "empty"]
    assert 0.55 < fifo["normal"] < 0.85 and fifo["patterns"] < 20 and fifo["age"] == 49.5


@pytest.mark.parametrize("rule", ["released", "refreshed", "closest_pair"])
def test_the_others_hold_what_differs(rule: str, found: dict[tuple[str, str], dict[str, float]]) -> None:
    fifo, other = found["fifo", "empty"], found[rule, "empty"]
    assert other["normal"] < 0.3 < fifo["normal"] and other["patterns"] > fifo["patterns"]
    assert other["cosine"] < fifo["cosine"] / 2


def test_the_closest_pair_loses_no_pattern_and_no_time(found: dict[tuple[str, str], dict[str, float]]) -> None:
    closest = found["closest_pair", "empty"]
    others = [found[rule, "empty"] for rule in ("released", "refreshed")]
    assert closest["patterns"] >= PATTERNS - 1 >= max(other["patterns"] for other in others)
    assert closest["normal"] < 0.1 and closest["age"] < min(other["age"] for other in others)


def test_after_a_start_with_noise_the_first_texts_stay(found: dict[tuple[str, str], dict[str, float]]) -> None:
    """The first 400 texts are a quarter of all."""
    assert found["released", "noise"]["early"] > 0.4 > 0.3 > found["released", "empty"]["early"]
    assert found["closest_pair", "empty"]["early"] < 0.15
