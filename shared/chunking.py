"""Cut an artifact into chunks, compress and seal each on its own, name it by its ciphertext.

    plain bytes --cut--> pieces --planes, zstd--> packed --AES-256-GCM--> chunk, named by SHA-256

Every chunk can be fetched, checked, resumed and opened alone. The signed manifest lists the names,
so caches and peers need no key; the AEAD binds a chunk to its artifact, index and count, so that
none can stand in for another (`docs/protocol.md` §4).

I/O: none.
"""

import hmac
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared import planes
from shared.errors import RefusedError
from shared.identifiers import sha256

CHUNK_BYTES: Final = 1024 * 1024
KEY_BYTES: Final = 32
#: Most that sealing may add to a piece: codec byte, zstd frame overhead, AEAD tag.
OVERHEAD_BYTES: Final = 1024
_RAW, _ZSTD, _PLANES = b"\x00", b"\x01", b"\x02"
_TAG_BYTES: Final = 16
_LEVEL: Final = 6
#: For exponents: hardly any repetition is worth telling, so that the frame is all entropy-coded symbols.
_EXPONENTS: Final = zstandard.ZstdCompressionParameters.from_level(
    1, min_match=7, hash_log=6, window_log=20, strategy=zstandard.STRATEGY_FAST
)
_HEAD: Final = struct.Struct("<cBBx")  # of planes: codec, width, lead


class DamagedChunkError(RefusedError):
    """The bytes are not the chunk that the manifest names: fetch it again, from elsewhere."""

    code = "E_CHUNK_DAMAGED"


class WrongKeyError(RefusedError):
    """The chunk is the one named, but the content key does not open it."""

    code = "E_CONTENT_KEY"


def cut(size_bytes: int, borders: Sequence[int] = (), target_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover `[0, size_bytes)`, each of 1 to `target_bytes` bytes.

    Cuts fall on the last of `borders` (ascending offsets, such as tensor ends) that a chunk can
    reach, so that a tensor which did not change stays a chunk that did not change.
    """
    start = 0
    while start < size_bytes:
        reach = min(start + target_bytes, size_bytes)
        found = bisect_right(borders, reach) - 1
        end = (
            borders[found]
            if reach < size_bytes and found >= 0 and borders[found] > start + target_bytes // 2
            else reach
        )
        yield start, end
        start = end


def artifact_key(content_key: bytes, artifact: str) -> bytes:
    """The key of one artifact (`model`, `golden`, ...), derived from the release's content key."""
    return hmac.digest(content_key, b"flotilla/artifact/1:" + artifact.encode(), "sha256")


def _context(artifact: str, index: int, count: int) -> tuple[bytes, bytes]:
    return index.to_bytes(12, "big"), f"flotilla/chunk/1|{artifact}|{index}|{count}".encode()


def seal(plain: bytes | memoryview, *, key: bytes, artifact: str, index: int, count: int) -> bytes:
    """The chunk for `plain`. `key` is `artifact_key(...)` and must be fresh for each release."""
    bodies = [_RAW + bytes(plain), _ZSTD + zstandard.ZstdCompressor(level=_LEVEL).compress(plain)]
    if (form := planes.guess(plain)) is not None:
        kept, top = planes.split(plain, form)
        packed = zstandard.ZstdCompressor(compression_params=_EXPONENTS).compress(top)
        bodies.append(_HEAD.pack(_PLANES, form.width, form.lead) + kept + packed)
    body = min(bodies, key=len)
    nonce, context = _context(artifact, index, count)
    return AESGCM(key).encrypt(nonce, body, context)


def check(chunk: bytes | memoryview, name: str) -> None:
    """Nothing, if `chunk` is the one called `name`.

    Raises:
        DamagedChunkError: it is not.
    """
    if not hmac.compare_digest(sha256(chunk), name):
        raise DamagedChunkError(f"chunk {name[:12]} arrived with other content")


def unseal(chunk: bytes, *, key: bytes, artifact: str, index: int, count: int, plain_bytes: int) -> bytes:
    """The `plain_bytes` bytes that were sealed into `chunk` at this place.

    Raises:
        WrongKeyError, DamagedChunkError: as `Opener.open`.
    """
    opener = Opener(key=key, artifact=artifact, count=count)
    return bytes(opener.open(chunk, index=index, plain_bytes=plain_bytes))


class Opener:
    """Opens the chunks of one artifact, one after the other, in memory that is used again. For one thread."""

    def __init__(self, *, key: bytes, artifact: str, count: int) -> None:
        self._artifact, self._count = artifact, count
        self._cipher = AESGCM(key)
        self._inflater = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024)
        self._joiner = planes.Joiner()
        self._body = self._plain = bytearray()

    def open(self, chunk: bytes | memoryview, *, index: int, plain_bytes: int) -> memoryview:
        """The `plain_bytes` bytes that were sealed into `chunk` at this place. They are there until the next call.

        Raises:
            WrongKeyError: the key, the place or the content is not the one it was sealed with.
            DamagedChunkError: the content has another length than the manifest says.
        """
        nonce, context = _context(self._artifact, index, self._count)
        size = max(0, len(chunk) - _TAG_BYTES)
        self._body = _with_room(self._body, size)
        body = memoryview(self._body)[:size]
        try:
            self._cipher.decrypt_into(nonce, chunk, context, body)
        except InvalidTag:
            raise WrongKeyError(
                f"chunk {index} of {self._artifact!r} does not open with the release's content key"
            ) from None
        match bytes(body[:1]):
            case b"\x00":
                plain = body[1:]
            case b"\x02":
                plain = self._joined(body, plain_bytes)
            case _:
                plain = self._inflate(body[1:], plain_bytes)
        if len(plain) != plain_bytes:
            raise DamagedChunkError(
                f"chunk {index} of {self._artifact!r} holds {len(plain)} bytes, the manifest says {plain_bytes}"
            )
        return plain

    def _joined(self, body: memoryview, plain_bytes: int) -> memoryview:
        try:
            _, width, lead = _HEAD.unpack_from(body)
            form = planes.Form.of(width, lead, plain_bytes)
            edge = _HEAD.size + plain_bytes - form.count
            return self._joiner.join(body[_HEAD.size : edge], self._inflate(body[edge:], form.count), form)
        except (struct.error, ValueError) as error:
            raise DamagedChunkError(f"chunk of floats that cannot be put together: {error}") from None

    def _inflate(self, packed: memoryview, plain_bytes: int) -> memoryview:
        """Never more than a byte beyond what the manifest allows, whatever the frame says."""
        self._plain = _with_room(self._plain, plain_bytes + 1)
        plain = memoryview(self._plain)[: plain_bytes + 1]
        try:
            return plain[: self._inflater.stream_reader(packed).readinto(plain)]
        except zstandard.ZstdError as error:
            raise DamagedChunkError(f"chunk does not decompress: {error}") from None


def _with_room(buffer: bytearray, size: int) -> bytearray:
    """`buffer`, or a new one where it is too small: views of the old one stay what they are."""
    return buffer if len(buffer) >= size else bytearray(size)
