import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature

from shared import signing
from shared.errors import BadInputError
from shared.signing import MAX_JSON_DEPTH, NaClKey, NaClSigner, SealError, strict_json


def test_a_signature_holds_for_its_bytes_and_its_key_only() -> None:
    signer, other = NaClSigner.generate(), NaClSigner.generate()
    signature = signer.sign(b"release")
    signer.public_key.verify_signature(signature, b"release")
    with pytest.raises(UnverifiedSignatureError):
        signer.public_key.verify_signature(signature, b"release ")
    with pytest.raises(UnverifiedSignatureError):
        other.public_key.verify_signature(signature, b"release")


@pytest.mark.parametrize("text", ["", "zz", "00" * 63, "00" * 65])
def test_a_malformed_signature_is_refused(text: str) -> None:
    key = NaClSigner.generate().public_key
    with pytest.raises((VerificationError, UnverifiedSignatureError)):
        key.verify_signature(Signature(key.keyid, text), b"x")


def test_a_stored_seed_gives_the_same_key() -> None:
    signer = NaClSigner.generate()
    again = NaClSigner.from_seed(signer.seed)
    assert again.public_key.keyid == signer.public_key.keyid
    again.public_key.verify_signature(signer.sign(b"x"), b"x")


def test_tuf_uses_our_keys_once_installed() -> None:
    signing.install()
    signing.install()
    public = NaClSigner.generate().public_key
    read = Key.from_dict(public.keyid, public.to_dict())
    assert isinstance(read, NaClKey)
    assert read == public


@pytest.mark.parametrize("public", ["00" * 31, "zz" * 32, ""])
def test_a_key_of_another_length_is_refused(public: str) -> None:
    document = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}}
    with pytest.raises(ValueError, match=r"32 bytes|hexadecimal"):
        NaClKey.from_dict("id", document)


def test_what_is_sealed_opens_for_its_owner_only() -> None:
    owner, other = PrivateKey.generate(), PrivateKey.generate()
    secret = signing.new_content_key()
    sealed = signing.seal(secret, bytes(owner.public_key))
    assert signing.unseal(sealed, bytes(owner)) == secret
    assert signing.seal(secret, bytes(owner.public_key)) != sealed
    with pytest.raises(SealError):
        signing.unseal(sealed, bytes(other))


@pytest.mark.parametrize("sealed", ["", "!", "AAAA", "é"])
def test_what_was_never_sealed_is_refused(sealed: str) -> None:
    with pytest.raises(SealError):
        signing.unseal(sealed, bytes(PrivateKey.generate()))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"x": {"a": 1, "a": 1}}',
        "[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1),
        "1" * 21,
        '{"a": NaN}',
        "[Infinity]",
        "{",
        "",
        "\ufeff{}",
        '"' + "x" * 1000 + '"',
    ],
)
def test_json_that_a_signature_may_not_cover_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        strict_json(text, limit_bytes=1000)


def test_brackets_inside_text_are_no_nesting() -> None:
    text = json.dumps({"a": "[" * 100 + '\\"' + "{" * 100})
    assert strict_json(text, limit_bytes=10_000) == json.loads(text)


_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(document=_DOCUMENTS)
def test_ordinary_json_is_read_as_ever(document: object) -> None:
    assert strict_json(json.dumps(document).encode(), limit_bytes=100_000) == document


@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_document_or_a_refusal(data: bytes) -> None:
    try:
        strict_json(data, limit_bytes=100)
    except BadInputError as error:
        assert error.detail  # noqa: PT017 (nothing else may be raised)
