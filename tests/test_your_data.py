"""The three commands of docs/your-data.md print what the page says they print, and end in an aligned model."""

import json
import re
import shlex
from pathlib import Path

import pytest

from bnf_align.cli.main import main
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
