"""The documentation names only what exists."""

import re
from pathlib import Path

import pytest

from bnf_align import LOSSES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_test_that_the_paper_map_names_exists():
    text = (ROOT / "docs" / "paper-map.md").read_text()
    tests = {
        name for file in (ROOT / "tests").glob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert set(re.findall(r"::(test_\w+)", text)) <= tests
    for file in re.findall(r"(test_\w+\.py)", text):
        assert (ROOT / "tests" / file).exists(), file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_says_not_yet_of_a_part_that_exists(page):
    for part in re.findall(r"not yet[^|`\n]{0,20}`([a-z_/.]+)`", page.read_text(), re.IGNORECASE):
        assert not (ROOT / "src" / "bnf_align" / part).exists(), part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_command_names_exists(page):
    for path in re.findall(r"(?:--config|python) ((?:recipes|benchmarks)/\S+)", page.read_text()):
        assert (ROOT / path.rstrip("`.,;:)")).exists(), path


def test_the_table_of_objectives_says_what_each_takes():
    rows = {}
    for line in (ROOT / "docs" / "objectives.md").read_text().splitlines():
        if line.startswith("| `"):
            name, _, pairs, reference, hyperparameters, _ = (cell.strip() for cell in line.strip("|").split(" | "))
            rows[name.strip("`")] = (pairs, reference, hyperparameters)
    assert list(rows) == sorted(LOSSES, key=list(rows).index)
    for name, spec in LOSSES.items():
        only = {None: "", True: "; ups alone", False: "; downs alone"}[spec.only]
        defaults = {key: str(value).lower().removesuffix(".0") for key, value in spec.hyperparameters.items()}
        listed = ", ".join(f"{key} {value}" for key, value in defaults.items()) or "none"
        assert rows[name] == (("no", "yes")[spec.pairwise] + only, ("no", "yes")[spec.reference], listed), name


def test_the_readme_begins_with_the_two_commands_and_names_every_loss():
    text = (ROOT / "README.md").read_text()
    first = text[text.index("```bash") :].splitlines()[1:3]
    assert [line.split("#")[0].strip() for line in first] == ["make quickstart", "make test"]
    assert all(f"`{name}`" in text for name in LOSSES)
