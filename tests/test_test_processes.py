"""How 'make test' shares out the tests."""

import pytest


def test_all_tests_of_a_file_are_of_one_group(request: pytest.FixtureRequest) -> None:
    """Else each process makes the runs that they share for itself, minutes each."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run by 'pytest -n 2 --dist loadgroup', as 'make test' runs it")
    assert request.node.nodeid.endswith("@tests/test_test_processes.py")
