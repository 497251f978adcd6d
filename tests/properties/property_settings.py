"""How many examples each property is tried with: a few, or as many as the environment asks for."""

import os

from hypothesis import HealthCheck, settings

VARIABLE = "D2RNET_PROPERTY_EXAMPLES"
QUICK = settings(
    max_examples=int(os.environ.get(VARIABLE, "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
