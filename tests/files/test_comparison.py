"""Settings of then against those of now."""

from d2rnet.files.comparison import differences, first_few


def test_every_difference_with_its_dotted_key() -> None:
    made = {"size": {"px": 128, "pad": True}, "gone": 1, "same": [1, 2]}
    now = {"size": {"px": 96, "pad": True}, "same": [1, 2], "new": None}
    assert differences(made, now, "a.b") == [
        "a.b.size.px 128, not 96",
        "a.b.new without a value, not null",
        "a.b.gone 1, not without a value",
    ]
    assert differences(made, made) == []
    assert differences(None, {}) == [" null, not {}"]


def test_a_long_list_is_cut() -> None:
    assert first_few([str(number) for number in range(7)]) == "0; 1; 2; 3; 4 and 2 more"
