"""What the documentation shows as printed is what is printed: its console blocks run, in their order."""

import json
import re
import shlex
from itertools import islice
from pathlib import Path

import pytest

from bnf_align.cli.main import main
from tiny_models import byte_tokenizer, chatml_tokenizer, gemma_tokenizer, plain_tokenizer
from tiny_nets import tiny_llama

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with the models, and the data too long to show, that the pages name."""
    monkeypatch.chdir(tmp_path)
    tokenizers = {"base": plain_tokenizer(), "chatml": chatml_tokenizer(), "gemma": gemma_tokenizer()}
    tokenizers["endless"] = byte_tokenizer(["<pad>", "<end>"], pad_token="<pad>")
    for name, tokenizer in tokenizers.items():
        tiny_llama().save_pretrained(name)
        tokenizer.save_pretrained(name)
    rows = [
        {"prompt": f"{i}+{i}=", "completion": str(2 * i + wrong), "label": not wrong}
        for i in range(20)
        for wrong in (0, 1)
    ]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def steps(page: str) -> list[tuple[list[str], str]]:
    """Commands of a page's console blocks, each with what the page shows below it."""
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    found = [step.partition("\n") for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(shlex.split(command), shown) for command, _, shown in found]


@pytest.mark.parametrize("page", ["data-formats.md", "doctor.md"])
def test_what_a_page_shows_is_what_is_printed(page, folder, capsys, caplog):
    ran = 0
    for (verb, *arguments), shown in steps(page):
        if verb == "cat":
            Path(arguments[0]).write_text(shown)
        elif verb == "head":
            with open(arguments[-1]) as file:
                assert "".join(islice(file, int(arguments[1]))) == shown
        else:
            caplog.clear()
            main(arguments)
            captured, ran = capsys.readouterr(), ran + 1
            if arguments[0] == "train":  # a page shows some of its lines; the iterator keeps their order
                printed = iter("\n".join([captured.out, captured.err, caplog.text]).splitlines())
                assert all(any(line in said for said in printed) for line in shown.splitlines() if line), captured
            else:
                assert captured.out + captured.err == shown
    assert ran > 2
