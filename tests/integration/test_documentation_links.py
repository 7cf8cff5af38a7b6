"""Links between pages lead to files and headings that exist."""

from __future__ import annotations

import pytest
from helpers.scripts import load_script


@pytest.fixture
def script():
    return load_script("docs/check_links.py", "check_links")


def test_links_of_the_documentation(script, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0, capsys.readouterr().out


def test_broken_links_are_named(script, tmp_path):
    (tmp_path / "other.md").write_text("# Heights, as they come\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "## `--tile-px` and more\n[a](other.md#heights-as-they-come) [b](#--tile-px-and-more) [c](https://x.org#y)\n"
        "[d](gone.md) [e](other.md#depths)\n",
        encoding="utf-8",
    )
    assert script.broken_links(page) == [f"{page}: gone.md: no such file", f"{page}: other.md#depths: no such heading"]
