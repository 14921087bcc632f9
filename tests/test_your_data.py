"""Every command of docs/your-data.md runs; its worked example prints what it says and ends in an aligned model."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from bnf_align.cli.main import main
from bnf_align.sources import SOURCES
from exports_chat import feedback, tree
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

PAGE = Path(__file__).parents[1] / "docs" / "your-data.md"
MAILS = (11, 19, 24, 33, 37)


def blocks() -> list[tuple[list[str], list[str]]]:
    """The commands of the worked example as words, each with the lines that the page shows below it."""
    text = PAGE.read_text(encoding="utf-8")
    text = text[text.index("## Open WebUI in three commands") :]
    found = re.findall(r"```bash\n(.*?)```\n```\n(.*?)```", text, re.DOTALL)
    return [(shlex.split(command.replace("\\\n", " "))[1:], printed.splitlines()) for command, printed in found]


def ratings() -> list[dict]:
    """40 chats of two turns: in 8 of them two answers are rated, one up and one down, in 13 one is up, in 19 down."""
    records = []
    for n in range(40):
        mail = f" Write to user{n}@example.org." if n in MAILS else ""
        up, down = f"{n} and {n} is {2 * n}.{mail}", f"No.{mail}"
        chat = tree(
            ("q0", None, "user", "Hi"),
            ("a0", "q0", "assistant", "<think>A greeting.</think>Hello!"),
            ("q1", "a0", "user", f"{n} + {n}?"),
            ("a1", "q1", "assistant", up),
            ("a2", "q1", "assistant", down),
        )
        for answer, rating in [("a1", 1)] * (n < 21) + [("a2", -1)] * (n < 8 or n >= 21):
            records.append(feedback(chat, answer, rating, number=len(records), chat_id=f"chat-{n}"))
    return records


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with the export and the model of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNF_ALIGN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "feedback-history-export.json").write_text(json.dumps(ratings()))
    tokenizer = chatml_tokenizer()
    tokenizer.save_pretrained("small-chat")
    tiny_llama(len(tokenizer)).save_pretrained("small-chat")
    return tmp_path


def without_numbers(lines: list[str]) -> list[str]:
    """The last digits of a training run are another machine's."""
    return [re.sub(r"[-+]?\d[\d.,e-]*", "N", line) for line in lines]


def test_the_worked_example_prints_what_the_page_says(desk, capsys, caplog):
    commands = blocks()
    assert [words[0] for words, _ in commands] == ["import", "doctor", "train"]
    for words, printed in commands:
        caplog.clear()
        training = words[0] == "train"
        status = main([*words, "--use_cpu", "--ref_cache_dir", "cache"] if training else words)
        logged = [record.getMessage() for record in caplog.records if record.name.startswith("bnf_align")]
        lines = logged + capsys.readouterr().out.splitlines()
        assert status == (1 if words[0] == "doctor" else 0)
        if training:
            lines, printed = without_numbers(lines), without_numbers(printed)
        assert lines == printed
    assert (desk / "aligned" / "model.safetensors").exists()


MODULES = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("exports_*.py"))]
EXPORTS = {name: export for module in MODULES for name, export in module.EXPORTS.items()}
THUMBS = [("Why?", "Because.", True), ("Why?", "No idea.", False), ("Who?", "You.", False)]


def commands() -> list[str]:
    """The commands of the tables, one for each source at least."""
    return re.findall(r"`(bnf-align import (?!auto)[^`]* --out rows\.jsonl)`", PAGE.read_text(encoding="utf-8"))


def test_the_tables_name_every_source():
    assert {shlex.split(command)[2] for command in commands()} == set(SOURCES)


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_tables_reads_its_export(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    (tmp_path / "export").mkdir()
    if "--winner" in words:
        (tmp_path / "export" / "duels.csv").write_text("q,a,b,winner\nHi,Hello,What?,left\nHi,x,y,tie\n")
        files = [tmp_path / "export" / "duels.csv"]
    else:
        files = EXPORTS[words[1]](THUMBS, tmp_path / "export")
    given = {"FILE": str(files[0]), "FOLDER": str(tmp_path / "export")}
    assert main([given.get(word, word) for word in words]) < 2
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    taught = [row.get("chosen", row["completion"] if row.get("label") else None) for row in rows]
    assert any("Because." in str(answer) or "Hello" in str(answer) for answer in taught if answer is not None)
    assert all("No idea." not in str(answer) for answer in taught)
