"""The documents say what is so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| .* \| `([^|]+)` \| (moco/[\w/]+\.py) \|$", (ROOT / "docs/method.md").read_text(), re.MULTILINE)


def test_the_table_of_the_method_is_found():
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("line", "file"), ROWS)
def test_every_line_quoted_beside_the_paper_is_in_the_code(line, file):
    assert line in (ROOT / file).read_text()
