"""Tokens of customers: what is accepted, and every way in which one is not good."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from api.customer_tokens import BadKeyFile, BadToken, CustomerTokens
from shared import limits
from shared.settings import Settings

SECRET = "s" * 64
KEYS = {"first": rsa.generate_private_key(65537, 2048), "second": rsa.generate_private_key(65537, 2048)}


def settings(**values: Any) -> Settings:
    return Settings(
        database_url="postgresql://nowhere",
        redis_url="redis://nowhere",
        jwt_issuer="https://id.example",
        **values,
    )


def claims(**changes: object) -> dict[str, object]:
    good = {
        "sub": "ann",
        "aud": "onsale",
        "iss": "https://id.example",
        "exp": datetime.now(UTC) + timedelta(hours=1),
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(**changes: object) -> str:
    return jwt.encode(claims(**changes), SECRET, algorithm="HS256")


@pytest.fixture
def by_secret() -> CustomerTokens:
    return CustomerTokens(settings(jwt_secret=SECRET))


def write_key_file(path: Path, *names: str) -> None:
    keys = []
    for name in names:
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEYS[name].public_key()))
        keys.append(key | {"kid": name, "alg": "RS256", "use": "sig"})
    path.write_text(json.dumps({"keys": keys}))
    # The clock of a file system can be coarser than two writes of a test.
    os.utime(path, ns=(len(names), hash(names) % 2**40))


def signed_by(name: str, kid: str | None = None) -> str:
    return jwt.encode(claims(), KEYS[name], algorithm="RS256", headers={"kid": kid or name})


def test_a_good_token_names_its_user(by_secret: CustomerTokens) -> None:
    assert by_secret.read(signed()).user_id == "ann"


def test_the_audience_may_be_one_of_several(by_secret: CustomerTokens) -> None:
    assert by_secret.read(signed(aud=["other", "onsale"])).user_id == "ann"


long_ago, soon = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://another.example"},
        {"iss": None},
        {"exp": long_ago},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": soon},
        {"iat": soon},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\x00b"},
        {"sub": "x" * (limits.USER_ID_LENGTH_MAX + 1)},
    ],
    ids=" ".join,
)
def test_a_token_with_a_claim_that_is_not_good_is_refused(
    by_secret: CustomerTokens, changes: dict[str, object]
) -> None:
    with pytest.raises(BadToken):
        by_secret.read(signed(**changes))


@pytest.mark.parametrize("text", ["", "a.b.c", "....", "onsale_x_y", "\x00", "ä"])
def test_what_is_no_token_is_refused(by_secret: CustomerTokens, text: str) -> None:
    with pytest.raises(BadToken):
        by_secret.read(text)


def test_a_token_without_signature_is_refused(by_secret: CustomerTokens) -> None:
    with pytest.raises(BadToken):
        by_secret.read(jwt.encode(claims(), "", algorithm="none"))


def test_a_token_of_another_secret_or_hash_is_refused(by_secret: CustomerTokens) -> None:
    for token in (
        jwt.encode(claims(), "t" * 64, algorithm="HS256"),
        jwt.encode(claims(), SECRET, algorithm="HS384"),
    ):
        with pytest.raises(BadToken):
            by_secret.read(token)


def test_a_token_that_takes_the_public_key_for_a_secret_is_refused(tmp_path: Path) -> None:
    """RFC 8725, section 2.1: the attacker knows the public key and signs with it by HS256."""
    path = tmp_path / "keys.json"
    write_key_file(path, "first")
    public = KEYS["first"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "typ": "JWT", "kid": "first"}
    parts = [
        jwt.utils.base64url_encode(json.dumps(part, default=_seconds).encode()) for part in (header, claims())
    ]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(b".".join(parts), pem)
    token = b".".join([*parts, jwt.utils.base64url_encode(signature)]).decode()
    with pytest.raises(BadToken):
        CustomerTokens(settings(jwt_jwks_file=path)).read(token)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def test_the_keys_of_a_file_are_told_apart_by_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_key_file(path, "first", "second")
    tokens = CustomerTokens(settings(jwt_jwks_file=path))
    assert tokens.read(signed_by("first")).user_id == "ann"
    assert tokens.read(signed_by("second")).user_id == "ann"
    for token in (signed_by("first", kid="second"), signed_by("first", kid="third"), signed()):
        with pytest.raises(BadToken):
            tokens.read(token)


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_key_file(path, "first")
    tokens = CustomerTokens(settings(jwt_jwks_file=path))
    assert not tokens.refresh()
    write_key_file(path, "second", "first")
    assert tokens.refresh()
    assert tokens.read(signed_by("second")).user_id == "ann"
    write_key_file(path, "second")
    assert tokens.refresh()
    with pytest.raises(BadToken):
        tokens.read(signed_by("first"))


def _symmetric(path: Path) -> None:
    key = {"kty": "oct", "k": "c2VjcmV0", "kid": "first", "alg": "HS256"}
    path.write_text(json.dumps({"keys": [key]}))


def _same_name_twice(path: Path) -> None:
    write_key_file(path, "first", "second")
    path.write_text(path.read_text().replace('"second"', '"first"'))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"keys": []}'),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.write_text(" " * (limits.JWKS_FILE_BYTES_MAX + 1)),
        _symmetric,
        _same_name_twice,
    ],
)
def test_a_file_that_can_not_be_used_leaves_the_keys_as_they_were(
    tmp_path: Path, spoil: Callable[[Path], Any]
) -> None:
    path = tmp_path / "keys.json"
    write_key_file(path, "first")
    tokens = CustomerTokens(settings(jwt_jwks_file=path))
    spoil(path)
    with pytest.raises(BadKeyFile):
        tokens.refresh()
    assert tokens.read(signed_by("first")).user_id == "ann"
    with pytest.raises(BadKeyFile):
        CustomerTokens(settings(jwt_jwks_file=path))


def test_elliptic_curves_will_do(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private.public_key()))
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [key | {"kid": "curve", "alg": "ES256"}]}))
    token = jwt.encode(claims(), private, algorithm="ES256")
    assert CustomerTokens(settings(jwt_jwks_file=path)).read(token).user_id == "ann"


def test_without_a_secret_and_a_file_no_token_is_good() -> None:
    with pytest.raises(BadToken):
        CustomerTokens(settings()).read(signed())
