"""Flags that several verbs share."""

from types import SimpleNamespace

import pytest

from bnf_align.cli.flags import endpoint, text_of
from bnf_align.cli.main import main
from bnf_align.judge.wording import wording
from bnf_align.records import BadInput


def test_a_template_is_read_byte_for_byte(tmp_path):
    path = tmp_path / "template.md"
    path.write_bytes("\ufeffa\r\nb\rc \n\n{question}\n".encode())
    assert text_of(path) == "\ufeffa\r\nb\rc \n\n{question}\n"


def test_a_template_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    for name in ("latin.md", "missing.md"):
        with pytest.raises(BadInput, match=name):
            text_of(tmp_path / name)


def test_our_wording_in_a_file_stays_ours():
    assert wording("ours", "ours") == wording(None, "ours")
    assert wording("ours", "ours").startswith("ours:")
    assert not wording("theirs", "ours").startswith("ours:")


@pytest.mark.parametrize("wrong", ["0", "-3", "1.5", "ten", ""])
def test_none_of_something_is_refused_before_an_empty_file_passes_for_a_finished_one(wrong, capsys):
    argv = ["eval", "run", "--task", "gsm8k", "--model", "m", "--out", "o"]
    for flag in ("--limit", "--concurrency", "--batch-rows", "--max-new-tokens"):
        with pytest.raises(SystemExit) as stopped:
            main([*argv, f"{flag}={wrong}"])
        assert stopped.value.code == 2
        assert f"argument {flag}" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["sk-proj-abc123", "hf_abc123", "Bearer x"])
def test_a_key_where_its_variables_name_belongs_is_refused_and_not_repeated(key):
    arguments = SimpleNamespace(url=["http://localhost:1"], api_key_env=key, concurrency=1)
    with pytest.raises(BadInput, match="name of an environment variable") as caught:
        endpoint(arguments, "m")
    assert key not in str(caught.value)
    arguments.api_key_env = "MY_KEY_2"
    assert endpoint(arguments, "m").api_key_env == "MY_KEY_2"
