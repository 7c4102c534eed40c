"""RFC 7512: what we read, what we write, and what we refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyagent.errors import ConfigError
from proxyagent.uri import Uri

TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
URIS = st.builds(
    Uri,
    serial=TEXT,
    manufacturer=TEXT,
    model=TEXT,
    token=TEXT,
    object=TEXT,
    id=st.none() | st.binary(max_size=10),
    type=st.sampled_from([None, "private", "cert", "public"]),
)


@given(uri=URIS)
def test_what_is_written_is_read_back(uri: Uri) -> None:
    assert Uri.parse(str(uri)) == uri


@given(
    text=st.text(max_size=60) | st.text(alphabet="pkcs1:;=%?&idserialtoken09af-", max_size=60).map("pkcs11:".__add__)
)
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        uri = Uri.parse(text)
    except ConfigError:
        return
    assert Uri.parse(str(uri)) == uri


def test_the_attributes_of_the_rfc() -> None:
    uri = Uri.parse("pkcs11:token=The%20Software%20Token;manufacturer=Snake%20Oil,%20Inc.;serial=;id=%69%95;type=cert")
    assert uri == Uri(
        token="The Software Token", manufacturer="Snake Oil, Inc.", serial="", id=b"\x69\x95", type="cert"
    )
    assert Uri.parse("pkcs11:") == Uri()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PKCS11:serial=1", "starts with"),
        ("pkcs11:serial=1;serial=1", "twice"),
        ("pkcs11:serial", "without a value"),
        ("pkcs11:slot-id=3", "changes from plug to plug"),
        ("pkcs11:colour=red", "unknown attribute"),
        ("pkcs11:token=a b", "percent-encoded"),
        ("pkcs11:token=%2", "percent-encoded"),
        ("pkcs11:token=%ff", "not UTF-8"),
        ("pkcs11:type=data", "unknown type"),
        ("pkcs11:serial=1;", "without a value"),
        ("pkcs11:serial=1?module-name=x", "query"),
    ],
)
def test_refusals_name_the_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Uri.parse(text)


@pytest.mark.parametrize("query", ["pin-value=987654", "module-name=x&pin-value=987654"])
def test_a_pin_in_the_uri_is_refused_and_not_repeated(query: str) -> None:
    with pytest.raises(ConfigError, match="carries a PIN") as caught:
        Uri.parse(f"pkcs11:serial=1?{query}")
    assert "987654" not in caught.value.message + caught.value.hint


def test_a_command_for_the_pin_is_refused() -> None:
    with pytest.raises(ConfigError, match="source for the PIN"):
        Uri.parse("pkcs11:serial=1?pin-source=|/usr/bin/steal")


def test_only_what_is_named_must_match() -> None:
    uri = Uri.parse("pkcs11:serial=1;object=robot")
    assert uri.matches_token(serial="1", manufacturer="any", model="any", label="any")
    assert not uri.matches_token(serial="11", manufacturer="any", model="any", label="any")
    assert uri.matches_object(label="robot", identifier=b"x")
    assert not uri.matches_object(label="Robot", identifier=b"x")
    assert not Uri(id=b"y").matches_object(label="robot", identifier=b"x")
