"""Shared by all tests."""

from hypothesis import HealthCheck, settings

# A machine that stalls is no fault of the test which runs just then.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
