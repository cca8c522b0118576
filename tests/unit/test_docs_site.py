"""The documents build into a site without a warning, load nothing from elsewhere, and mistakes end the build."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]* src=\"?([^\" >]+)|<link[^>]* href=\"?([^\" >]+)|@import ([^;]+)"
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None, reason="zensical is missing: pip install 'lispfmc[docs]'"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the build reads, to be changed and built."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "deploy").mkdir()
    for name in ("mkdocs.yml", "deploy/docs.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [folder / "deploy/docs.sh"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_documents_build_without_warnings_and_load_nothing_from_elsewhere(copy: Path) -> None:
    done = build(copy)
    assert done.returncode == 0, done.stderr
    pages = [path for path in (copy / "build/site").rglob("*.html") if path.name != "404.html"]
    assert len(pages) == len([*(ROOT / "docs").rglob("*.md")])
    for page in pages:
        text = page.read_text()
        loaded = [next(filter(None, found)) for found in LOADED.findall(text)]
        assert loaded
        assert [each for each in loaded if re.match(r"(https?:)?//", each)] == [], page
        assert 'class="mermaid"' not in text, "its script would come from elsewhere"


@pytest.mark.parametrize(
    ("page", "text", "complaint"),
    [
        ("events.md", "[there](nowhere.md)", "page does not exist"),
        ("events.md", "[there](moves.md#nowhere)", "anchor does not exist"),
        ("lonely.md", "# Lonely", "lonely.md is not in the nav of mkdocs.yml: add it there"),
        ("reference/commands.md", "and more", "run make reference"),
    ],
)
def test_a_mistake_ends_the_build_and_is_named(page: str, text: str, complaint: str, copy: Path) -> None:
    with (copy / "docs" / page).open("a") as file:
        file.write(f"\n{text}\n")
    done = build(copy)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_a_page_that_the_navigation_names_and_is_not_there_ends_the_build(copy: Path) -> None:
    (copy / "docs/howto/add-a-site.md").unlink()
    done = build(copy)
    assert done.returncode == 1
    assert "howto/add-a-site.md is in the nav of mkdocs.yml and not in docs/: remove it there" in done.stderr
