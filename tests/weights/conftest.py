"""The tests of weights reach for no network either."""

from tests.encoders.conftest import no_network  # noqa: F401
