"""The compact form of a telemetry window: Protobuf's wire format, deflated, and the counts behind it (ADR 20, 24).

    0x03 || raw deflate (RFC 1951, preset dictionary `DICTIONARY`) of the message in docs/protocol.md || edges || counts

`pack` takes what `model_dump(mode="json")` of a window gives, `unpack` gives it back: one check of values for both
forms. Of the bin edges of each feature come 2 bytes; counts are written by `compact_split`, about six bits a bin.

I/O: none.
"""

import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from shared import compact_host, compact_split
from shared.compact_wire import Fields, column, number, text, unzigzag, zigzag
from shared.errors import BadInputError

MARK: Final = b"\x03"
MAX_PLAIN_BYTES: Final = 96 * 1024  # after inflating
MAX_COUNTS: Final = 2**17  # of all features and the latency
MAX_LATENCY_SPAN: Final = 2048  # bins between the fastest and the slowest request
EDGES_BYTES: Final = 2  # of the digest of the bin edges that travel
EDGES_HEX: Final = 2 * EDGES_BYTES
MANIFEST_HEX: Final = 16

#: Part of the form: what windows usually hold, the most usual last. Another dictionary needs another mark.
DICTIONARY: Final = (
    b"cpufreq-cpu0,devfreq-17000000.gpu,soc0-throttle-alert,gpu-throttle-alert,cpu-throttle-alert"
    b"bad-request,busy,internal,not-finite,timeout,worker-died"
    b"APE,DLA0,DLA1,MSENC,NVDEC,NVENC,NVJPG,NVJPG1,OFA,PVA0,SE,VIC,VDD_CPU_CV,VDD_GPU_SOC,VIN_SYS_5V0,"
    b"VDD_IN,VDD_CPU_GPU_CV,VDD_SOCcpu,gpu,cv0,cv1,cv2,soc0,soc1,soc2,tj,tboard,tdiode,"
    b"APE,NVDLA0,NVDLA1,NVDEC,NVDEC1,NVENC,NVENC1,NVJPG,PVA0,PVA1,SE,VICNVDEC,NVENC,NVJPG,NVJPG1,OFA,VIC"
    b"CPU,CV,GPU,SOC,SYS5V,VDDRQVDD_CPU_GPU_CV,VDD_IN,VDD_SOCVDD_CPU_CV,VDD_GPU_SOC,VIN_SYS_5V0"
    b"AO,AUX,CPU,GPU,Tboard,Tdiode,thermal-fan-estcpu,cv0,cv1,cv2,gpu,soc0,soc1,soc2,tjcpu,gpu,soc0,soc1,soc2,tj"
    b"NVDEC,NVENC,NVJPG,OFA,VIC"
    b"cpu-thermal,gpu-thermal,cv0-thermal,cv1-thermal,cv2-thermal,soc0-thermal,soc1-thermal,soc2-thermal,tj-thermal"
    b"embedding.10,embedding.11,embedding.12,embedding.13,embedding.14,embedding.15,"
    b"class.predicted,embedding.0,embedding.1,embedding.2,embedding.3,embedding.4,embedding.5,embedding.6,embedding.7,"
    b"embedding.8,embedding.9,input.mean,input.missing,input.spread,output.area,output.count,"
    b"class.predicted,input.brightness,input.contrast,input.saturation,input.sharpness,output.confidence,"
    b"output.entropy,output.margin"
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
_TEXTS: Final = {1: "device", 6: "model", 7: "version"}
_HEXES: Final = {2: "stream", 5: "boot", 8: "manifest"}
_NUMBERS: Final = {3: "sequence", 13: "requests", 14: "labelled", 15: "correct", 16: "restarts", 30: "shed"}
_BACK, _PROBATION, _START, _LENGTH, _AT = 4, 9, 10, 11, 12
_ERRORS, _ERROR_NUMBERS, _LATENCY_FIRST, _LATENCY_BINS = 17, 18, 19, 20
_FEATURES, _MISSING = 21, 25
_HOST, _CONFUSION, _BATCHES = 26, 27, 28
_TRIPLE: Final = 3  # true class, predicted class, number

Document = Mapping[str, Any]


def packable(window: Document) -> bool:
    """Whether the compact form can hold it; what it cannot hold travels as JSON."""
    features = window.get("features", {})
    names = [*features, *window.get("errors", {}), *compact_host.names(window.get("host", {}))]
    edges = [counts["edges"] for counts in features.values()]
    latency = [int(place) for place in window.get("latency", {})]
    return (
        all(_HEX.fullmatch(window[name]) for name in _HEXES.values())
        and all(_HEX.fullmatch(digest) and len(digest) >= EDGES_HEX for digest in edges)
        and all(name and "," not in name for name in names)
        and (not latency or max(latency) - min(latency) < MAX_LATENCY_SPAN)
        and sum(len(counts["counts"]) for counts in features.values()) + MAX_LATENCY_SPAN <= MAX_COUNTS
        and window["sequence"] > window.get("after", 0)
        and _EPOCH <= datetime.fromisoformat(window["start"]) <= datetime.fromisoformat(window["end"])
    )


def pack(window: Document) -> bytes:
    """The compact form of a window that is `packable`. Times are cut to milliseconds."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    every = window.get("features", {}).values()
    edges = b"".join(bytes.fromhex(counts["edges"][:EDGES_HEX]) for counts in every)  # chance does not deflate
    return MARK + deflate.compress(b"".join(_fields(window))) + deflate.flush() + edges + _counts(window)


def unpack(payload: bytes) -> dict[str, Any]:
    """The document in `payload`, which begins with `MARK`. Its values are not yet checked.

    Raises:
        BadInputError: not of this form.
    """
    inflate = zlib.decompressobj(-15, DICTIONARY)
    try:
        plain = inflate.decompress(payload[len(MARK) :], MAX_PLAIN_BYTES)
        if not inflate.eof:
            raise BadInputError(f"compact payload is cut off, or more than {MAX_PLAIN_BYTES} bytes")
        return _document(Fields(plain), inflate.unused_data)
    except (zlib.error, ValueError, OverflowError) as error:
        raise BadInputError(f"compact payload is damaged: {error}") from None


def _fields(window: Document) -> Iterator[bytes]:
    start, end, at = (datetime.fromisoformat(window[name]) for name in ("start", "end", "at"))
    for field, name in _TEXTS.items():
        yield text(field, window[name].encode())
    for field, name in _HEXES.items():
        yield text(field, bytes.fromhex(window[name][:MANIFEST_HEX] if name == "manifest" else window[name]))
    for field, name in _NUMBERS.items():
        yield number(field, window.get(name, 0))
    yield number(_BACK, window["sequence"] - window.get("after", 0) - 1)
    yield number(_PROBATION, window["phase"] == "probation")
    yield number(_START, (start - _EPOCH) // _MS)
    yield number(_LENGTH, (end - start) // _MS)
    yield number(_AT, zigzag((at - end) // _MS))
    every = list(window.get("features", {}).items())
    yield text(_FEATURES, ",".join(name for name, _ in every).encode())
    yield text(_HOST, compact_host.pack(window.get("host", {})))
    yield from _columns(window)
    missing = [counts.get("missing", 0) for _, counts in every]
    yield text(_MISSING, column(missing) if any(missing) else b"")


def _columns(window: Document) -> Iterator[bytes]:
    errors, batches = window.get("errors", {}), window.get("batches", {})
    yield text(_ERRORS, ",".join(errors).encode())
    yield text(_ERROR_NUMBERS, column(errors.values()))
    first, latency = _latency(window)
    yield number(_LATENCY_FIRST, zigzag(first))
    yield number(_LATENCY_BINS, len(latency))
    yield text(_CONFUSION, column(value for triple in window.get("confusion", ()) for value in triple))
    yield text(_BATCHES, column(value for place, count in batches.items() for value in (int(place), count)))


def _latency(window: Document) -> tuple[int, list[int]]:
    """The first bin, and one number for each from there to the last."""
    found = {int(place): count for place, count in window.get("latency", {}).items()}
    if not found:
        return 0, []
    first = min(found)
    return first, [found.get(place, 0) for place in range(first, max(found) + 1)]


def _counts(window: Document) -> bytes:
    bits, before = compact_split.Writer(), window.get("requests", 0)
    if latency := _latency(window)[1]:
        before = bits.counts(latency, before)
    size = 0
    for one in window.get("features", {}).values():
        bits.number(zigzag(len(one["counts"]) - size))
        size, before = len(one["counts"]), bits.counts(one["counts"], before)
    return bits.bytes()


def _document(fields: Fields, behind: bytes) -> dict[str, Any]:
    start = _EPOCH + fields.number(_START) * _MS
    end = start + fields.number(_LENGTH) * _MS
    sequence = fields.number(3)
    found: dict[str, Any] = {name: fields.text(field) for field, name in _TEXTS.items()}
    found |= {name: fields.bytes(field).hex() for field, name in _HEXES.items()}
    found |= {name: fields.number(field) for field, name in _NUMBERS.items()}
    names = fields.names(_FEATURES)
    edges = [behind[place : place + EDGES_BYTES].hex() for place in range(0, EDGES_BYTES * len(names), EDGES_BYTES)]
    latency, columns = _columns_of(fields, len(names), compact_split.Reader(behind[EDGES_BYTES * len(names) :]))
    missing = fields.column(_MISSING) or [0] * len(names)
    batches = fields.column(_BATCHES)
    return found | {
        "after": sequence - fields.number(_BACK) - 1,
        "phase": "probation" if fields.number(_PROBATION) else "serving",
        "start": start,
        "end": end,
        "at": end + unzigzag(fields.number(_AT)) * _MS,
        "errors": dict(zip(fields.names(_ERRORS), fields.column(_ERROR_NUMBERS), strict=True)),
        "latency": latency,
        "features": {
            name: {"edges": digest, "counts": values, "missing": lost}
            for name, digest, values, lost in zip(names, edges, columns, missing, strict=True)
        },
        "confusion": _triples(fields.column(_CONFUSION)),
        "batches": dict(zip(batches[::2], batches[1::2], strict=True)),
        "host": compact_host.unpack(fields.bytes(_HOST)),
    }


def _columns_of(fields: Fields, number_of: int, bits: compact_split.Reader) -> tuple[dict[int, int], list[list[int]]]:
    """Latency by bin, and the counts of each feature."""
    low, before = unzigzag(fields.number(_LATENCY_FIRST)), fields.number(13)
    span, size = fields.number(_LATENCY_BINS), 0
    left = _fewer(MAX_COUNTS, span)
    latency: list[int] = []
    if span:
        latency, before = bits.counts(span, before)
    columns = []
    for _ in range(number_of):
        size += unzigzag(bits.number())
        left = _fewer(left, size)
        counts, before = bits.counts(size, before)
        columns.append(counts)
    return {low + place: count for place, count in enumerate(latency) if count}, columns


def _fewer(left: int, size: int) -> int:
    if not 0 <= size <= left:
        raise ValueError(f"more than {MAX_COUNTS} counts")
    return left - size


def _triples(values: list[int]) -> list[tuple[int, ...]]:
    return [tuple(values[place : place + _TRIPLE]) for place in range(0, len(values), _TRIPLE)]
