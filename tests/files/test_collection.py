"""The garbage collector rests for a while and is as it was afterwards."""

import gc

import pytest

from d2rnet.files.collection import collection_paused


def test_collection_rests_and_comes_back_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="stop"), collection_paused():
        assert not gc.isenabled()
        raise ValueError("stop")
    assert gc.isenabled()


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_every_call_of_a_decorated_function_pauses_it() -> None:
    @collection_paused()
    def state() -> bool:
        return gc.isenabled()

    assert (state(), state(), gc.isenabled()) == (False, False, True)
