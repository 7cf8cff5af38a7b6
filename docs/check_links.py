"""Check that links between pages lead to a file and a heading that exist; exit code 1 otherwise.

python docs/check_links.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchor(heading: str) -> str:
    """Make the anchor that GitHub gives a heading: small letters, hyphens for spaces, no other signs."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(page: Path) -> list[str]:
    """List the links of a page to missing files or headings; links to web sites are not followed."""
    found = []
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if name.startswith(("https:", "http:")):
            continue
        if not target.exists():
            found.append(f"{page}: {link}: no such file")
        elif heading and heading not in map(anchor, _HEADING.findall(target.read_text(encoding="utf-8"))):
            found.append(f"{page}: {link}: no such heading")
    return found


def main() -> None:
    """Check README, CONTRIBUTING and all pages of docs."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    broken = [line for page in pages for line in broken_links(page)]
    print("\n".join(broken) if broken else f"All links between {len(pages)} pages lead somewhere")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
