"""Progress: a bar on a terminal unless --quiet, a count in the log elsewhere."""

import logging
import sys

import pytest

from d2rnet.cli.logs import set_up_logging
from d2rnet.runs.progress import track


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_shows_no_bar(quiet, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    set_up_logging(None, quiet=quiet)
    assert list(track(range(3), total=3, what="read", unit="image")) == [0, 1, 2]
    assert ("read: 100%" in capsys.readouterr().err) is not quiet


def test_log_counts_units_not_items(caplog):
    with caplog.at_level(logging.INFO, logger="d2rnet.runs.progress"):
        assert list(track(["batch", "batch"], total=10, what="predict", step=8)) == ["batch", "batch"]
    assert caplog.messages[-1].startswith("predict: 10/10 images in 0:00:00")
