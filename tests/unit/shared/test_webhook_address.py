"""Which URLs a webhook may have, and which addresses are sent to."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.webhook_address import (
    NEVER,
    ForbiddenAddress,
    check_url,
    may_connect,
    parse_networks,
    parse_target,
)

EVERYTHING = parse_networks("0.0.0.0/0, ::/0")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "http://example.org:8080/a/b?c=d&e=%20",
        "https://xn--bcher-kva.example/",
        "https://my_host.example.org./",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]:444/",
        "HTTPS://EXAMPLE.ORG/",
        "https://3com.example/",
        "https://example.org?x",
    ],
)
def test_an_ordinary_url_is_accepted(url: str) -> None:
    """With a name, or a global address."""
    check_url(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "//example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "javascript:alert(1)",
        "http://",
        "http:///path",
        "http://user@example.org/",
        "http://user:secret@example.org/",
        "http://@example.org/",
        "http://example.org@127.0.0.1/",
        "http://example.org#@127.0.0.1/",
        "http://example.org/#part",
        "http://example.org\\@127.0.0.1/",
        "http://example.org:0/",
        "http://example.org:/",
        "http://example.org:99999/",
        "http://example.org:8a/",
        "http://exa mple.org/",
        "http://example.org/a\r\nHost: inside",
        "http://example.org/\t",
        "http://bücher.example/",
        "http://①②⑦.⓪.⓪.①/",
        "http://a..example/",
        "http://.example/",
        "http://-a.example/",
        "http://[::1",
        "http://[::1]x/",
        "http://[]/",
        "http://[fe80::1%25eth0]/",
        "http://[v1.a]/",
        "http://" + "a" * 254 + "/",
        "http://example.org/" + "a" * 2000,
    ],
)
def test_anything_else_is_not(url: str) -> None:
    """Each says what was expected, and never repeats a secret."""
    with pytest.raises(ValueError, match=r"\w") as refused:
        check_url(url, EVERYTHING)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "0.0.0.0"),
        *("169.254.169.254", "169.254.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "198.18.0.1", "203.0.113.1"),
        *("2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.1", "0"),
        *("127.0.0.1.", "127.000.000.001", "1.1.1.1.1", "example.1", "example.0x1", "256.1.1.1"),
        *(
            "[::1]",
            "[::]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:0a00:1]",
        ),
        *("[::ffff:1.1.1.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::1.1.1.1]"),
        *("[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[fe80::1]", "[fec0::1]", "[ff02::1]"),
        *("[fd00::1]", "[fc00::1]", "[fd00:ec2::254]", "[100::1]", "[2001:db8::1]", "[4000::1]"),
        *("localhost", "LOCALHOST", "localhost.", "a.localhost", "a.localhost."),
    ],
)
def test_an_address_that_leads_inside_is_refused(host: str) -> None:
    """In whatever form it is written."""
    with pytest.raises(ForbiddenAddress):
        check_url(f"http://{host}/", ())


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "100.64.0.1", "[::1]", "[fd00::1]", "localhost"]
)
def test_a_private_network_is_sent_to_where_it_is_listed(host: str) -> None:
    """And only that one."""
    check_url(f"http://{host}/", EVERYTHING)
    check_url(
        f"http://{host}/",
        parse_networks("127.0.0.0/8,10.1.0.0/16,192.168.0.0/24,100.64.0.0/10,::1/128,fd00::/16"),
    )
    with pytest.raises(ForbiddenAddress):
        check_url(f"http://{host}/", parse_networks("10.2.0.0/16, fd01::/16"))


@given(st.sampled_from(NEVER), st.integers(min_value=0, max_value=2**128 - 1))
def test_what_is_never_sent_to_cannot_be_listed(network: object, number: int) -> None:
    """Metadata, link-local, multicast, unspecified, reserved, and every address with another one inside."""
    net = ip_network(str(network))
    address = net[number % net.num_addresses]
    assert not may_connect(address, EVERYTHING)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_is_never_sent_to(address: object) -> None:
    """Mapped, translated, compatible, and behind NAT64, also where IPv4 itself may be."""
    for form in ("::ffff:{}", "::ffff:0:{}", "64:ff9b::{}", "::{}"):
        inside = ip_address(form.format(address))
        if str(inside) != "::1":
            assert not may_connect(inside, EVERYTHING)


@given(st.text(max_size=60))
def test_no_text_confuses_the_reading(text: str) -> None:
    """It is a target, or it is refused by a ValueError."""
    for url in (text, f"http://{text}", f"https://{text}/", f"http://a/{text}"):
        try:
            target = parse_target(url)
        except ValueError:
            continue
        assert target.path.startswith(("/", "?"))
        assert 0 < target.port < 65_536
        assert "\r" not in target.path + target.authority
        assert " " not in target.path + target.authority


def test_parts_are_as_they_are_used() -> None:
    """The host for the certificate, the authority for the header, the path for the request line."""
    target = parse_target("https://Example.org:8443?a=1")
    assert (target.host, target.port, target.authority, target.path) == (
        "example.org",
        8443,
        "example.org:8443",
        "/?a=1",
    )


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "10.0.0.0/33", "::/x"])
def test_what_is_no_network_is_said_at_the_start(text: str) -> None:
    """And not when the first webhook is refused."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_networks(text)
