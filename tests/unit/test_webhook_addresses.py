"""Where webhooks may not go."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from shared import limits
from shared.errors import AddressRefused
from shared.webhooks.addresses import checked_addresses, is_public, port_of, read_url, resolve_with_system

PRIVATE = (
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a00:1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
)
PUBLIC = ("8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8")


@pytest.mark.parametrize("text", PRIVATE)
def test_a_private_address_is_refused(text: str) -> None:
    assert not is_public(ip_address(text))
    with pytest.raises(AddressRefused, match="not public"):
        checked_addresses([text], allow_private=False)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    assert checked_addresses([text], allow_private=False) == [ip_address(text)]


def test_one_private_address_among_public_ones_is_refused() -> None:
    with pytest.raises(AddressRefused):
        checked_addresses(["8.8.8.8", "::1"], allow_private=False)


def test_private_addresses_are_allowed_if_the_operator_says_so() -> None:
    assert checked_addresses(["127.0.0.1"], allow_private=True) == [ip_address("127.0.0.1")]


def test_a_host_with_many_addresses_is_tried_at_some() -> None:
    many = [f"8.8.8.{number}" for number in range(1, 100)]
    assert len(checked_addresses(many, allow_private=False)) == limits.WEBHOOK_ADDRESSES_TRIED_MAX


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost"])
def test_other_ways_to_write_a_private_address_are_refused(host: str) -> None:
    def check() -> None:
        url = read_url(f"https://{host}/", allow_private=False)
        checked_addresses(resolve_with_system(url.raw_host.decode(), port_of(url)), allow_private=False)

    with pytest.raises(AddressRefused):
        check()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://example.com/", "must begin with https://"),
        ("ftp://example.com/", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("example.com", "must begin with https://"),
        ("", "must begin with https://"),
        ("https://", "names no host"),
        ("https:///path", "names no host"),
        ("https://exa mple.com/", "names no host"),
        ("https://user:secret@example.com/", "no user, password or fragment"),
        ("https://example.com/#here", "no user, password or fragment"),
        ("https://example.com:0/", "port must be between"),
        ("https://example.com:99999/", "port must be between"),
        ("https://example.com:port/", "not a URL"),
        ("https://exam\nple.com/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://xn--/", "not a URL"),
        ("https://xn--a/", "not a URL"),
    ],
)
def test_a_url_of_another_form_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(AddressRefused, match=reason):
        read_url(text, allow_private=False)


def test_a_url_is_read_with_its_port() -> None:
    assert port_of(read_url("https://example.com/hook?a=b", allow_private=False)) == 443
    assert port_of(read_url("https://example.com:8443/", allow_private=False)) == 8443
    assert port_of(read_url("http://intranet/", allow_private=True)) == 80
