"""Addresses of servers, and the settings in them."""

import pytest

from thresher.errors import InputError, SettingsError
from thresher.models.server_address import ServerAddress

SECRET = "sk-very-secret-1234"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://localhost:8000#m", ("http://localhost:8000/v1", "m")),
        ("http://localhost:8000/v1/", ("http://localhost:8000/v1", None)),
        ("HTTPS://h.example/api/v1#org/model@main", ("https://h.example/api/v1", "org/model@main")),
        ("http://[::1]:8/v1#a%23b", ("http://[::1]:8/v1", "a#b")),
    ],
)
def test_addresses_are_read(address, expected):
    parsed = ServerAddress.parse(address)
    assert (parsed.url, parsed.model) == expected


def test_settings_in_the_address_are_read():
    parsed = ServerAddress.parse("http://h/v1?timeout=5&in_flight=2&tries=3&per_minute=60#m")
    assert (parsed.timeout_s, parsed.n_in_flight, parsed.n_tries, parsed.n_per_minute) == (5.0, 2, 3, 60)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("http://h/v1?timeouts=5#m", "no setting 'timeouts'.*did you mean 'timeout'"),
        ("http://h/v1?tries=0#m", "tries must be a whole number of at least 1, got '0'"),
        ("http:///v1#m", "found no host"),
        ("http://h:x/v1#m", "a port that is no number"),
    ],
)
def test_a_bad_address_is_refused(address, named):
    with pytest.raises((InputError, SettingsError), match=named):
        ServerAddress.parse(address)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(InputError, match="without a user name or password") as caught:
        ServerAddress.parse(f"http://me:{SECRET}@h/v1#m")
    assert SECRET not in str(caught.value)
