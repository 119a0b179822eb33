"""Blocks of integers and of bytes, to bytes and back.

Integers go through pcodec (asymmetric numeral systems, within a percent of the entropy), bytes through zstd.
Reading is bounded by what the caller expects: no field in a block says how much memory is taken.

I/O: none.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zstandard
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, standalone

from shared.delta import numbers
from shared.delta.errors import DeltaError
from shared.delta.numbers import Array
from shared.delta.split import WIDTH, Kind

_LEVEL: Final = 8
_CONFIG: Final = ChunkConfig(
    compression_level=_LEVEL, mode_spec=ModeSpec.classic(), delta_spec=DeltaSpec.no_op(), enable_8_bit=True
)
#: A block of n integers takes at most its plain bytes and this.
SLACK_BYTES: Final = 4096
_MAX_WINDOW_BYTES: Final = 128 * 1024 * 1024
_RAW_DICTIONARY: Final = zstandard.DICT_TYPE_RAWCONTENT


def pack_integers(numbers: Array) -> bytes:
    """A block; empty when every number is zero."""
    if not numbers.any():
        return b""
    packed: bytes = standalone.simple_compress(np.require(numbers, requirements=["C", "A"]), _CONFIG)
    return packed


def unpack_integers(block: bytes, count: int, dtype: npt.DTypeLike) -> Array:
    """The `count` numbers in a block.

    Raises:
        DeltaError: it holds something else.
    """
    numbers = np.zeros(count, dtype)
    if not block:
        return numbers
    try:
        done = standalone.simple_decompress_into(block, numbers)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DeltaError(f"a block of numbers cannot be read: {error}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the library's own assertion: damaged input
            raise
        raise DeltaError("a block of numbers cannot be read: the decoder gave up") from None
    if done.n_processed != count or not done.finished:
        raise DeltaError(f"a block of {count} numbers holds another count")
    return numbers


def pack_plain(pattern: Array, kind: Kind) -> bytes:
    """Elements that nothing is known of: sign and magnitude apart, or the bytes themselves, whichever is less."""
    candidates = [b"\x00" + pattern.tobytes(), b"\x01" + pack_bytes(pattern.tobytes(), level=3)]
    if kind in numbers.FLOATS:
        signs = np.packbits(pattern < 0).tobytes()
        candidates.append(b"\x02" + signs + pack_integers(pattern & np.iinfo(pattern.dtype).max))
    else:
        candidates.append(b"\x03" + pack_integers(pattern))
    return min(candidates, key=len)


def unpack_plain(block: bytes, count: int, kind: Kind) -> Array:
    """The `count` elements in a block of `pack_plain`.

    Raises:
        DeltaError: it holds something else.
    """
    dtype = numbers.BITS[kind]
    form, body = block[:1], block[1:]
    if form == b"\x03":
        return unpack_integers(body, count, dtype)
    if form == b"\x02" and kind in numbers.FLOATS:
        size = (count + 7) // 8
        signs = np.unpackbits(np.frombuffer(body[:size].ljust(size, b"\0"), np.uint8), count=count)
        magnitude = unpack_integers(body[size:], count, dtype)
        return np.where(signs != 0, magnitude | np.iinfo(magnitude.dtype).min, magnitude)
    plain = unpack_bytes(body, count * WIDTH[kind]) if form == b"\x01" else body
    if form not in (b"\x00", b"\x01") or len(plain) != count * WIDTH[kind]:
        raise DeltaError("a block of elements is damaged")
    return np.frombuffer(plain, dtype)


def pack_bytes(plain: bytes | memoryview, like: bytes | memoryview = b"", *, level: int | None = None) -> bytes:
    """`plain`, told by what it has in common with `like`."""
    level = level or (19 if len(plain) <= 4 << 20 else 6)
    dictionary = _dictionary(like)
    log = max(10, (len(plain) + len(like)).bit_length() + 1)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(plain),
        dict_size=len(like),
        window_log=min(log, 27),
        enable_ldm=len(like) > 1 << 20,
        write_checksum=False,
        write_content_size=False,
        write_dict_id=False,
    )
    extra: dict[str, Any] = {} if dictionary is None else {"dict_data": dictionary}
    packed: bytes = zstandard.ZstdCompressor(compression_params=parameters, **extra).compress(bytes(plain))
    return packed


def unpack_bytes(block: bytes, count: int, like: bytes | memoryview = b"") -> bytes:
    """The `count` bytes in a block.

    Raises:
        DeltaError: it holds something else.
    """
    dictionary = _dictionary(like)
    extra: dict[str, Any] = {} if dictionary is None else {"dict_data": dictionary}
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES, **extra).stream_reader(block)
        plain: bytes = reader.read(count + 1)
    except zstandard.ZstdError as error:
        raise DeltaError(f"a block of bytes cannot be read: {error}") from None
    if len(plain) != count:
        raise DeltaError(f"a block of {count} bytes holds another count")
    return plain


def _dictionary(like: bytes | memoryview) -> Any:
    if len(like) < 8:  # the library wants some
        return None
    return zstandard.ZstdCompressionDict(bytes(like), dict_type=_RAW_DICTIONARY)


def unpack_text(block: bytes, limit_bytes: int) -> bytes:
    """The bytes in a block, at most `limit_bytes`.

    Raises:
        DeltaError: damaged, or more.
    """
    try:
        plain: bytes = (
            zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).stream_reader(block).read(limit_bytes + 1)
        )
    except zstandard.ZstdError as error:
        raise DeltaError(f"a block of bytes cannot be read: {error}") from None
    if len(plain) > limit_bytes:
        raise DeltaError(f"a block of more than {limit_bytes} bytes")
    return plain
