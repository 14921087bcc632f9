"""What holds for every importer: no down becomes an up, and nothing that is read ends in a traceback.

Each `exports_<group>.py` offers `EXPORTS`: importer -> a function that writes (prompt, answer, up) thumbs as the
product would. An importer of pairs writes the first up against the first down, and so on, and leaves out the rest.
"""

import copy
import gzip
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnf_align.records import BadInput
from bnf_align.sources import SOURCES, Options, detect, import_rows

Thumb = tuple[str, str, bool]
MODULES = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("exports_*.py"))]
EXPORTS: dict[str, Callable[[list[Thumb], Path], list[Path]]] = {
    name: export for module in MODULES for name, export in module.EXPORTS.items()
}
OPTIONS: dict[str, Options] = {
    name: options for module in MODULES for name, options in getattr(module, "OPTIONS", {}).items()
}
PAIRS_ONLY = {name for module in MODULES for name in getattr(module, "PAIRS_ONLY", ())}
UNCERTAIN = {"table", "ms-swift"}  # the user names the columns of a table; messages and label are rows as they are

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")) | st.sampled_from("\n,;\"'\t<>{}[]\\|#"), max_size=30
)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def thumbs(draw: st.DrawFn) -> list[Thumb]:
    """Different answers, some to the same prompt, rated up or down."""
    many = draw(st.lists(st.tuples(st.integers(0, 3), TEXT, st.booleans()), min_size=1, max_size=8))
    return [
        (f"Question {prompt}: why?", f"Answer {number}: {text} end", up)
        for number, (prompt, text, up) in enumerate(many)
    ]


FEW: list[Thumb] = [("Why?", "Because.", True), ("Why?", "No idea.", False), ("Who?", "You.", False)]


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


def text_of(answer) -> str:
    return answer.strip() if isinstance(answer, str) else answer[-1]["content"].strip()


def rated(rows) -> tuple[set[str], set[str]]:
    """The answers that the rows teach, and those they unteach."""
    ups = [row["chosen"] if "chosen" in row else row["completion"] for row in rows if row.get("label", True)]
    downs = [
        row["rejected"] if "rejected" in row else row["completion"] for row in rows if not row.get("label", False)
    ]
    return {text_of(answer) for answer in ups}, {text_of(answer) for answer in downs}


def imported(name: str, paths: list[Path]) -> list[dict]:
    return list(import_rows(name, paths, OPTIONS.get(name))[0])


def test_every_importer_has_an_export_to_be_tested_with():
    assert set(EXPORTS) == set(SOURCES)


@pytest.mark.parametrize("name", sorted(EXPORTS))
@given(given_thumbs=thumbs())
@QUICK
def test_no_down_becomes_an_up_and_no_rating_is_lost(name, given_thumbs):
    wanted_ups = [answer.strip() for _, answer, up in given_thumbs if up]
    wanted_downs = [answer.strip() for _, answer, up in given_thumbs if not up]
    if name in PAIRS_ONLY:
        pairs = list(zip(wanted_ups, wanted_downs, strict=False))
        if not pairs:
            return
        wanted_ups, wanted_downs = map(list, zip(*pairs, strict=True))
    with folder() as path:
        rows = imported(name, EXPORTS[name](given_thumbs, path))
    assert rated(rows) == (set(wanted_ups), set(wanted_downs))
    assert all(row["label"] is True or row["label"] is False for row in rows if "completion" in row)


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_a_rated_answer_trains_once(name, tmp_path):
    rows = imported(name, EXPORTS[name](FEW, tmp_path))
    answers = [text_of(row[key]) for row in rows for key in ("completion", "chosen", "rejected") if key in row]
    assert len(answers) == len(set(answers))


@pytest.mark.parametrize("name", sorted(set(EXPORTS) - UNCERTAIN))
def test_auto_finds_the_source_and_gives_the_same_rows(name, tmp_path):
    paths = EXPORTS[name](FEW, tmp_path)
    assert detect(paths).name == name
    assert list(import_rows("auto", [tmp_path], OPTIONS.get(name))[0]) == imported(name, paths)


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_rows_are_written_as_json(name, tmp_path):
    rows = imported(name, EXPORTS[name](FEW, tmp_path))
    assert json.loads(json.dumps(rows)) == rows


# ---------------------------------------------------------------------------------------------- what is not an export

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def no_traceback(name: str, paths: list[Path]) -> None:
    try:
        for row in import_rows(name, paths, OPTIONS.get(name))[0]:
            assert "chosen" in row or isinstance(row["label"], bool)
    except BadInput:
        pass


@pytest.mark.parametrize("name", [*sorted(SOURCES), "auto"])
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".tsv", ".parquet", ".json.gz"])
@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(QUICK, max_examples=10)
def test_random_bytes_and_random_json_never_give_a_traceback(name, ending, content):
    with folder() as path:
        (path / f"export{ending}").write_bytes(content)
        no_traceback(name, [path])


@pytest.mark.parametrize("name", sorted(EXPORTS))
@given(seed=st.integers(0, 10**9), part=st.sampled_from([..., None, "", [], {}, [None], {"a": None}]))
@settings(QUICK, max_examples=60)
def test_what_is_missing_never_turns_a_label_over(name, seed, part):
    """A null, or nothing, in any place of an export: an answer keeps its label, or makes no row."""
    with folder() as path:
        if not torn_export(name, path, seed, part):
            return
        try:
            ups, downs = rated(imported(name, sorted(path.iterdir())))
        except BadInput:
            return
    assert not ups & {answer for _, answer, up in FEW if not up}
    assert not downs & {answer for _, answer, up in FEW if up}


def torn_export(name: str, folder: Path, seed: int, part) -> bool:
    """An export with `part` in the place of one of its values; whether it has files in which that is possible."""
    files = [file for file in EXPORTS[name](FEW, folder) if file.suffix in (".json", ".jsonl")]
    if not files:
        return False
    file = random.Random(seed).choice(files)
    value = read_json(file)
    write_json(file, changed(value, random.Random(seed).choice(list(places(value))), part))
    return True


def places(value, path=()) -> Iterator[tuple]:
    """The ways to every value in a JSON value."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def changed(value, path: tuple, part):
    """A copy of a JSON value with the part at `path` replaced; taken out if the new part is `...`."""
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if part is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = part
    return value


def read_json(path: Path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines() if line]


def write_json(path: Path, value) -> None:
    lines = isinstance(value, list) and path.suffix == ".jsonl"
    text = "\n".join(json.dumps(row) for row in value) if lines else json.dumps(value)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", sorted(EXPORTS))
@given(seed=st.integers(0, 10**9), part=JSON | st.just(...))
@settings(QUICK, max_examples=60)
def test_an_export_with_any_value_replaced_or_taken_out_never_gives_a_traceback(name, seed, part):
    with folder() as path:
        if not torn_export(name, path, seed, part):
            return
        no_traceback(name, sorted(path.iterdir()))


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_half_a_file_is_said_and_never_taken_for_a_whole_one(name, tmp_path):
    for file in EXPORTS[name](FEW, tmp_path):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) - len(content) // 4])
    with pytest.raises(BadInput):
        imported(name, sorted(tmp_path.iterdir()))


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_text_in_utf_16_is_named(name, tmp_path):
    files = [file for file in EXPORTS[name](FEW, tmp_path) if file.suffix != ".parquet"]
    for file in files:
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-16")
    if files:
        with pytest.raises(BadInput, match="UTF-16"):
            imported(name, sorted(tmp_path.iterdir()))


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_a_byte_order_mark_changes_nothing(name, tmp_path):
    files = EXPORTS[name](FEW, tmp_path)
    rows = imported(name, files)
    for file in files:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert imported(name, files) == rows


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_text_in_latin_1_is_named(name, tmp_path):
    files = EXPORTS[name](FEW, tmp_path)
    for file in files:
        file.write_bytes(file.read_text(encoding="utf-8").replace("Because", "Évident").encode("latin-1"))
    with pytest.raises(BadInput, match=r"not UTF-8 text near line \d+ .*iconv"):
        imported(name, files)


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_an_empty_file_is_named(name, tmp_path):
    files = EXPORTS[name](FEW, tmp_path)
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(BadInput):
        imported(name, files)


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_files_of_a_folder_in_parts_are_read_as_one(name, tmp_path):
    """Every product that writes lines may write them in several files, gzip among them."""
    (tmp_path / "whole").mkdir()
    files = EXPORTS[name](FEW, tmp_path / "whole")
    rows = imported(name, files)
    for file in files:
        if file.suffix == ".csv":
            continue
        records = read_json(file)
        for number, record in enumerate(records):
            part = tmp_path / "parts" / file.parent.name / f"{file.stem}-{number}.jsonl.gz"
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(gzip.compress(json.dumps(record).encode()))
    if (tmp_path / "parts").is_dir():
        parts = [tmp_path / "parts"]
        assert list(import_rows(name, parts, OPTIONS.get(name))[0]) == rows
