"""The tests of weights use no network either."""

from tests.encoders.conftest import no_network  # noqa: F401
