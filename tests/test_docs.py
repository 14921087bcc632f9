"""The documentation names only what exists."""

import ast
import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from bnf_align import LOSSES
from bnf_align.cli.main import VERBS, main

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
def test_every_python_file_that_a_page_names_exists(page):
    files = [
        f"/{file.relative_to(ROOT)}" for part in ("src", "tests", "benchmarks") for file in (ROOT / part).rglob("*.py")
    ]
    for name in re.findall(r"`([\w/]+\.py)\b", page.read_text()):
        assert any(file.endswith(f"/{name}") for file in files), name


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


def test_the_messages_in_troubleshooting_are_those_of_the_code():
    """Each part between the dots stands in one text of `src`, whatever lines it is broken over."""
    texts = []
    for file in (ROOT / "src" / "bnf_align").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(
                        str(getattr(part, "value", "…")) if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    everything = "\n".join(texts)
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = [row.split("|")[1].strip().strip("`") for row in page.splitlines() if row.startswith("| `")]
    assert len(messages) > 15
    for message in messages:
        for part in filter(None, (part.strip() for part in message.split("…"))):
            assert part in everything, message


def test_every_page_is_in_the_navigation_of_the_site():
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages == set(re.findall(r"([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))


def commands(page: Path) -> list[list[str]]:
    """The words of every `bnf-align` command in the page's shell blocks, without comments, pipes and redirections."""
    found = []
    for block in re.findall(r"```(?:bash|console|sh)\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if "bnf-align " in line else []
            if "bnf-align" in words and not words[words.index("bnf-align") + 1 :][0].endswith(":"):  # no message
                words = words[words.index("bnf-align") + 1 :]
                ends = [at for at, word in enumerate(words) if word in ("|", "&&", "||", ";", ">", "&")]
                found.append(words[: min(ends, default=len(words))])
    return found


@cache
def flags_of(*verb: str) -> set[str]:
    """Every flag that the help of a verb names, with underscores."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*verb, "--help-all" if verb[0] == "train" else "--help"])
    return {flag.replace("-", "_") for flag in re.findall(r"--([a-z][\w-]*)", out.getvalue())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_of_a_documented_command_exists(page):
    for words in commands(page):
        if words[0] not in VERBS:
            assert words[0] in ("VERB", "--help"), words
            continue
        verb = words[:2] if words[0] in ("eval", "reference", "lab") and words[1:] else words[:1]
        known = flags_of(*verb) | {"config"}
        if verb[0] in ("reference", "plan"):  # they take what train takes
            known |= flags_of("train") | flags_of("reference")
        given = {word.split("=")[0][2:].replace("-", "_") for word in words if re.match(r"--[a-z]", word)}
        assert given <= known, (words, sorted(given - known))
