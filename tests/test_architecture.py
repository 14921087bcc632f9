"""Rules of the house, kept true by reading the import statements and the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "bnf_align"

# Floors from the top; imports go down only, and rooms of one floor do not import each other.
FLOORS = [
    {"cli"},
    {"lab"},
    {"compare", "report"},
    {"construct", "evaluation", "analysis", "feedback"},
    {"training"},
    {"plan"},
    {"reference", "engines"},
    {"models"},
    {"data", "logps", "answers", "judge"},
    {"config", "head", "journal", "endpoint", "fingerprint", "cluster"},
    {"outputs", "stats"},
    {"losses", "records", "thoughts", "upstream", "visitors"},
    {"reasons"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# `sources` still reads labels, messages, columns and Arrow with `data`'s files: the two are one room here.
PART_OF = {"sources": "data"}

# `data.batching` and `data.responses` make the tensors of a step; no other room of a floor may know its neighbour.
FILES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return PART_OF.get(room, room)


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found = {name.split(".")[1] for name in names if name.startswith("bnf_align.")}
        rooms |= {PART_OF.get(room, room) for room in found}
    return {room for room in rooms if room in FLOOR_OF}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    if room not in FLOOR_OF:  # the package's own face
        assert room in ("__init__", "__main__")
        return
    for other in imported_rooms(path) - {room}:
        assert FLOOR_OF[other] > FLOOR_OF[room], f"{room} imports {other}"


def test_losses_import_torch_and_nothing_of_ours():
    tree = ast.parse((SOURCE / "losses.py").read_text())
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert modules - set(sys.stdlib_module_names) == {"torch"}


def test_the_trainer_knows_no_loss_by_name():
    """A new loss is a row of LOSSES: `if loss_type == ...` anywhere in training would make it two places."""
    from bnf_align import LOSSES

    for path in (SOURCE / "training").glob("*.py"):
        compared = [
            constant.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Compare)
            for constant in ast.walk(node)
            if isinstance(constant, ast.Constant)
        ]
        # `BNFTrainer` refuses the settings of another loss: the one place that may say its own name.
        assert not (set(compared) & set(LOSSES)) - ({"bnf"} if path.name == "trainer.py" else set()), path.name


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_room_is_called_anything(name):
    assert not list(SOURCE.rglob(f"{name}.py"))


def test_files_and_functions_stay_readable():
    """A file is a thing one can name; far beyond this it is several."""
    for path in FILES:
        text = path.read_text()
        assert len(text.splitlines()) <= 500, f"{path.name} is long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 90, f"{path.name}: {node.name} has {lines} lines"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["doctor", "--help"],
        ["import", "--help"],
        ["reference", "--help"],
        ["reference", "ls", "--help"],
        ["plan", "--help"],
        ["analyze", "--help"],
        ["generate", "--help"],
        ["score", "--help"],
        ["select", "--help"],
        ["report", "--help"],
        ["compare", "--help"],
        ["eval", "--help"],
        ["eval", "run", "--help"],
        ["collect", "--help"],
        ["env", "--help"],
        ["quickstart", "--help"],
    ],
    ids=" ".join,
)
def test_help_never_imports_torch(arguments):
    code = (
        "import sys\nfrom bnf_align.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as done:\n    assert not done.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'trl', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
