"""The figures of the last run over each pair, as docs/delta.md shows them.

Every row is of one run: our bytes and the peers' for the same two files, as they lie in the run's folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench.delta_pairs import Ours
from tests.bench.delta_peers import PEERS, WEIGHT_AWARE, Figure, known

_MIB: Final = 1 << 20
_Rows = Sequence[tuple[Ours, Mapping[str, Figure]]]


def told(runs: Path, names: Sequence[str]) -> str:
    """Tables in Markdown: bytes, the same beside the best peers and the entropy, speed and memory; and versions."""
    rows = [(Ours.load(run), known(run)) for name in names if (run := _last(runs, name)) is not None]
    return "\n\n".join("\n".join(table(rows)) for table in (_bytes, _parts, _work, _versions))


def _last(runs: Path, name: str) -> Path | None:
    found = sorted(runs.glob(f"{name}-*/ours.json"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else None


def _bytes(rows: _Rows) -> Iterator[str]:
    yield from _head("pair", "full", *PEERS, "ours")
    for ours, figures in rows:
        peers = [_cell(figures.get(peer)) for peer in PEERS]
        yield _line(ours.name, _kilo(ours.new_bytes), *peers, f"**{_kilo(ours.size_bytes)}**")


def _parts(rows: _Rows) -> Iterator[str]:
    yield from _head("pair", "of the file", "of the best byte delta", "of the best codec for weights",
                     "beside the best peer", "above entropy", "with the cost of a model")  # fmt: skip
    for ours, figures in rows:
        bytewise, weights = _best(figures, aware=False), _best(figures, aware=True)
        best = min((found for found in (bytewise, weights) if found is not None), default=None)
        yield _line(
            ours.name,
            f"{100 * ours.size_bytes / ours.new_bytes:.3g} %",
            _part(ours, bytewise),
            _part(ours, weights),
            "-" if best is None else f"{(ours.size_bytes - best) / 1000:+,.1f}",
            *(f"{100 * (ours.size_bytes / bound - 1):+.1f} %" for bound in (ours.entropy_bytes, ours.bound_bytes)),
        )


def _work(rows: _Rows) -> Iterator[str]:
    yield from _head("pair", "encoding MB/s", "decoding MB/s", "memory of the reader MiB", "allowed MiB")
    for ours, _ in rows:
        mega = ours.new_bytes / 1e6
        speeds = f"{mega / ours.encode_seconds:.1f}", f"{mega / ours.decode_seconds:,.0f}"
        yield _line(
            ours.name, *speeds, *(f"{each / _MIB:.0f}" for each in (ours.reader_bytes, ours.reader_limit_bytes))
        )


def _versions(rows: _Rows) -> Iterator[str]:
    found = {peer: figure.version for _, figures in rows for peer, figure in figures.items()}
    yield ", ".join(f"{peer} ({version.removeprefix('v')})" for peer, version in found.items())
    for ours, figures in rows:
        for peer, figure in figures.items():
            if figure.size_bytes is None:
                yield f"{ours.name}: {peer}: {figure.failed}"


def _best(figures: Mapping[str, Figure], *, aware: bool) -> int | None:
    sizes = [f.size_bytes for peer, f in figures.items() if f.size_bytes and (peer in WEIGHT_AWARE) is aware]
    return min(sizes, default=None)


def _part(ours: Ours, best: int | None) -> str:
    return "-" if best is None else f"{ours.size_bytes / best:.3g}"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return "failed" if figure.size_bytes is None else _kilo(figure.size_bytes)


def _kilo(size: int) -> str:
    return f"{size / 1000:,.1f}" if size < 100_000 else f"{size / 1000:,.0f}"


def _head(*columns: str) -> Iterator[str]:
    yield _line(*columns)
    yield "|---" * len(columns) + "|"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
