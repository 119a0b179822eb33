"""A plain page without scripts, light or dark as the reader likes: the API's documentation.

I/O: none.
"""

import base64
import hashlib
from html import escape
from typing import Final

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5c6878;--paper:#f6f7f9;--card:#fff;--line:#dde2e8;--blue:#1f5fbf;
--green:#1a7f4b;--amber:#9a5b00;--red:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaf0;--dim:#98a4b3;--paper:#12161c;--card:#1a2028;--line:#2c3540;
--blue:#7fb0ff;--green:#5fd39a;--amber:#e0aa55;--red:#ff8a80}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:60rem;margin:2.5rem auto;padding:0 1.25rem}
h1{font-size:1.5rem;margin:.2rem 0 .6rem}h2{font-size:1.05rem;margin:2rem 0 .5rem;text-transform:capitalize}
p{margin:.5rem 0}.dim{color:var(--dim)}a{color:var(--blue)}
code,pre,.path{font-family:ui-monospace,"SFMono-Regular",Menlo,Consolas,monospace;font-size:.88em}
details{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:.4rem 0}
summary{cursor:pointer;padding:.55rem .8rem;display:flex;gap:.75rem;align-items:baseline;flex-wrap:wrap}
summary:focus-visible,a:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
summary .what{color:var(--dim);margin-left:auto;text-align:right}
.verb{font:600 .75rem/1.6 ui-monospace,Menlo,Consolas,monospace;min-width:4.2rem;text-align:center;border-radius:5px;
border:1px solid currentColor}
.get{color:var(--blue)}.post{color:var(--green)}.put,.patch{color:var(--amber)}.delete{color:var(--red)}
.inner{border-top:1px solid var(--line);padding:.6rem .9rem 1rem;overflow-x:auto}
table{border-collapse:collapse;width:100%;margin:.4rem 0}th,td{text-align:left;padding:.3rem .6rem .3rem 0;
vertical-align:top;border-bottom:1px solid var(--line)}th{color:var(--dim);font-weight:500;font-size:.85em}
pre{background:var(--paper);border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem;
overflow-x:auto;margin:.4rem 0}
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

#: Nothing runs here, nothing comes from elsewhere, nobody frames it.
HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def page(title: str, body: str) -> str:
    """A whole document. `body` is HTML; `title` is text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)} · Flotilla</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )
