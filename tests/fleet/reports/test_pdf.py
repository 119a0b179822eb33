import re
import sys
import zlib

import pytest

from fleet.reports import pdf
from fleet.reports.errors import PdfError
from tests.fleet.reports.made import HOSTILE, report


def test_pdf_has_its_pages_embedded_fonts_no_date_and_is_the_same_each_time() -> None:
    """Names are hostile: nothing is read as a formula, and no missing glyph warns."""
    made = report(1, features=2, devices=2, columns=3, name=HOSTILE + "\N{SNOWMAN}\U0001f600$\\frac{1}{$")
    data = pdf.render(made)
    assert data.startswith(b"%PDF-1.")
    assert data.rstrip().endswith(b"%%EOF")
    # Summary, features, sites, devices, performance with alerts.
    assert len(re.findall(rb"/Type /Page\b", data)) == 5
    assert data.count(b"/FontFile2") >= 1
    assert b"/CreationDate" not in data
    start = int(re.search(rb"startxref\s+(\d+)", data)[1])  # type: ignore[index]
    assert data[start : start + 4] == b"xref"
    for stream in re.findall(rb"/FlateDecode[^>]*>>\s*stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        zlib.decompress(stream)
    assert pdf.render(made) == data


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    made = report(features=2, devices=1)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PdfError) as caught:
        pdf.render(made)
    assert "flotilla-edge[reports]" in caught.value.remedy
