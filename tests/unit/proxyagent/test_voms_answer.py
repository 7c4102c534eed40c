"""What VOMS servers answer: real answers are understood, and no others do harm."""

import base64
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyagent.errors import VomsError, VomsRefusedError
from proxyagent.voms.answer import FetchedAc, NoRestError, legacy_answer, rest_answer

AC = b"\x30\x82" + bytes(range(256)) * 5
BASE64 = base64.encodebytes(AC).decode()
THEIRS = str.maketrans(
    string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/",
    string.ascii_lowercase + string.ascii_uppercase + string.digits + "[]",
)
REFUSED = "<error><code>NoSuchUser</code><message>mice: User unknown to this VO.</message></error>"


def http(status: str, body: str, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", "Content-Type: text/xml", *headers, "", body)
    return "\r\n".join(lines).encode()


def rest(status: str, content: str) -> bytes:
    body = f'<?xml version="1.0" encoding="UTF-8"?><voms>{content}</voms>'
    return http(status, body, f"Content-Length: {len(body)}", "Connection: close")


def legacy(content: str) -> bytes:
    return (
        '<?xml version="1.0" encoding = "US-ASCII"?><vomsans><version>3</version>' + content + "</vomsans>"
    ).encode()


def item(number: int, message: str) -> str:
    return f"<item><number>{number}</number><message>{message}</message></item>"


def test_a_certificate_is_taken_over_rest() -> None:
    assert rest_answer(rest("200 OK", f"<ac>{BASE64}</ac>")) == FetchedAc(AC, None)
    chunk = f"<voms><ac>{BASE64}</ac></voms>"
    chunked = http("200 OK", f"{len(chunk):x}\r\n{chunk}\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    assert rest_answer(chunked) == FetchedAc(AC, None)


def test_a_certificate_with_a_warning_is_taken_though_the_status_is_500() -> None:
    found = rest_answer(rest("500 Internal Server Error", f"<ac>{BASE64}</ac><warning>is shortened\n</warning>"))
    assert found == FetchedAc(AC, "is shortened")


def test_a_refusal_over_rest_is_told_from_trouble() -> None:
    with pytest.raises(VomsRefusedError, match="says NoSuchUser, mice: User unknown to this VO"):
        rest_answer(rest("403 Forbidden", REFUSED))
    with pytest.raises(VomsRefusedError, match="Unable to satisfy"):
        rest_answer(
            rest("400 Bad Request", "<error><code>BadRequest</code><message>Unable to satisfy</message></error>")
        )
    with pytest.raises(VomsError, match="Problems in DB") as raised:
        rest_answer(rest("500 Error", "<error><code>InternalError</code><message>Problems in DB</message></error>"))
    assert not isinstance(raised.value, VomsRefusedError)


@pytest.mark.parametrize(
    "data",
    [
        http("404 Not Found", "", "Content-Length: 0"),
        http("403 Forbidden", "<html>no</html>"),
        http("200 OK", '<SOAP-ENV:Envelope xmlns:SOAP-ENV="x"><SOAP-ENV:Fault/></SOAP-ENV:Envelope>'),
        http("302 Found", "", "Location: https://elsewhere.example.org/"),
        http("200 OK", "<voms>", "Content-Length: 1000"),
        http("200 OK", "zz", "Transfer-Encoding: chunked"),
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_rest_interface_is_told_apart(data: bytes) -> None:
    with pytest.raises(NoRestError):
        rest_answer(data)


@pytest.mark.parametrize("text", [BASE64, BASE64.replace("\n", ""), BASE64.translate(THEIRS).replace("\n", "")])
def test_a_certificate_is_taken_as_of_old_in_either_alphabet(text: str) -> None:
    assert legacy_answer(legacy(f"<ac>{text}</ac>")) == FetchedAc(AC, None)
    assert legacy_answer(legacy(f"<ac>{text}</ac>") + b"\r\n\0") == FetchedAc(AC, None)
    if text.startswith("m"):  # that alphabet has nothing to fill up with
        assert legacy_answer(legacy(f"<ac>{text.rstrip('=')}</ac>")) == FetchedAc(AC, None)


def test_an_error_as_of_old_counts_though_a_certificate_is_there() -> None:
    with pytest.raises(VomsRefusedError, match="says mice: User unknown"):
        legacy_answer(legacy(f"<error>{item(1001, 'mice: User unknown')}</error><ac>QQ==\n</ac>"))
    shortened = item(2, "is shortened")
    with pytest.raises(VomsRefusedError, match=r"says Unable to satisfy$"):
        legacy_answer(legacy(f"<error>{shortened}{item(1001, 'Unable to satisfy')}</error><ac>QQ==\n</ac>"))
    for number in (1003, 1005, 9999):
        with pytest.raises(VomsError, match="says trouble") as raised:
            legacy_answer(legacy(f"<error>{item(number, 'trouble')}</error><ac>{BASE64}</ac>"))
        assert not isinstance(raised.value, VomsRefusedError)
    for odd in ("", "many", "²", "-1"):
        with pytest.raises(VomsError, match="says trouble"):
            legacy_answer(legacy(f"<error><item><number>{odd}</number><message>trouble</message></item></error>"))
    assert legacy_answer(legacy(f"<error>{shortened}</error><ac>{BASE64}</ac>")) == FetchedAc(AC, "is shortened")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "of 0 bytes"),
        ("<ac/>", "of 0 bytes"),
        ("<ac>&amp;</ac>", "not base64"),
        ("<ac>AAAAA</ac>", "not base64"),
        ("<ac>mi[[[</ac>", "not base64"),
        (f"<ac>{'A' * 60_000}</ac>", "of 45000 bytes"),
        ("<ac>", "unreadable XML"),
        ("<!-- --><ac>QQ==</ac>", "declarations"),
        ('<ac>QQ==</ac></vomsans><!DOCTYPE x [<!ENTITY a "b">]>', "declarations"),
        ("<ac>&undefined;</ac>", "unreadable XML"),
    ],
)
def test_useless_answers_are_refused(content: str, reason: str) -> None:
    with pytest.raises(VomsError, match=reason):
        legacy_answer(legacy(content))


def test_declarations_are_not_smuggled_in_by_another_encoding() -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "c">]><vomsans><ac>&b;</ac></vomsans>'
    for encoding in ("utf-8", "utf-7", "utf-16", "utf-16-be", "utf-16-le", "utf-32-be"):
        with pytest.raises(VomsError, match="declarations"):
            legacy_answer(text.encode(encoding))


def test_deep_xml_does_no_harm() -> None:
    with pytest.raises(VomsError):
        legacy_answer(b"<a>" * 80_000)
    with pytest.raises(VomsError):
        legacy_answer(b"<a>" * 35_000 + b"</a>" * 35_000)


@settings(max_examples=500)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=200).map(lambda data: b"HTTP/1.1 200 OK\r\n" + data),
        st.text(alphabet='<>/&;#x!?= 12acmiorsvew\r\n\0"é', max_size=200).map(
            lambda text: f"HTTP/1.1 200 OK\r\n\r\n<voms>{text}</voms>".encode()
        ),
    )
)
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    for parse in (rest_answer, legacy_answer):
        try:
            found = parse(data)
        except VomsError:
            continue
        assert found.der
