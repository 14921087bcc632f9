"""generate, score and select from the command line, one after the other and against each other's mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForSequenceClassification

from bnf_align.cli.main import main
from bnf_align.data.rows import preference_rows
from bnf_align.journal import read_jsonl
from construct_runs import COUNT, generate, in_process, lines_of, reward, write, write_jobs
from model_server import ModelServer
from tiny_models import chatml_tokenizer
from tiny_nets import SIZES


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_jobs(tmp_path_factory.mktemp("construct"))


def test_a_scored_file_says_what_scored_it_and_has_a_number_for_every_candidate(folder, tmp_path, capsys):
    assert main(reward(folder, tmp_path / "s.jsonl")) == 0
    assert all(len(row["scores"]) == 4 and None not in row["scores"] for row in read_jsonl(tmp_path / "s.jsonl"))
    assert "160 candidates of 40 rows scored" in capsys.readouterr().out
    card = json.loads((tmp_path / "s.jsonl.card.json").read_text())
    assert card["scorer"].startswith("reward_model:")
    assert len(card["weights"]) == 32


@pytest.mark.parametrize("command", [in_process, reward])
def test_a_batch_that_was_torn_apart_is_redone_and_its_finished_rows_stay(folder, tmp_path, command):
    """A power cut may leave some rows of a batch and half a line; here the kept rows are marked."""
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(command(folder, whole)) == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    kept = [line.replace(b'"prompt": ', b'"prompt":  ') for line in lines[1::3]]
    (tmp_path / "broken.jsonl.partial").write_bytes(b"".join(kept) + lines[0][:25])
    (tmp_path / "broken.jsonl.card.json").write_bytes((tmp_path / "whole.jsonl.card.json").read_bytes())
    assert main(command(folder, broken)) == 0
    expected = list(lines)
    expected[1::3] = kept
    assert broken.read_bytes() == b"".join(expected)


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(folder, tmp_path):
    out = tmp_path / "candidates.jsonl"
    argv = generate(folder, out, "--model", "a-model", "--concurrency", "1")
    with ModelServer(delay=0.05) as server:
        argv += ["--url", server.url]
        command = [sys.executable, "-m", "bnf_align", *argv]
        # What a shell starts in the background ignores the signal, and so do its children.
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeding) as process:
            while server.served.total() < 3:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=600)
        assert process.returncode == 130
        assert said.endswith("bnf-align generate: stopped. The same command goes on where it was.\n")
        assert "Traceback" not in said
        finished = lines_of(tmp_path / "candidates.jsonl.partial")
        assert main(argv) == 0
    assert set(finished) <= set(lines_of(out))
    assert len(lines_of(out)) == COUNT


# --------------------------------------------------------------------------------------------- the whole way


def test_prompts_become_a_set_that_train_reads(folder, tmp_path, capsys):
    candidates, scored, out = (tmp_path / f"{name}.jsonl" for name in ("candidates", "scored", "set"))
    assert main(in_process(folder, candidates)) == 0
    said = capsys.readouterr().out
    assert f"48 candidates to {COUNT} prompts" in said
    assert "ended by: " in said
    (tmp_path / "rule.py").write_text("def rule(row, text):\n    return len(text) % 5\n")
    where = Path.cwd()
    try:
        os.chdir(tmp_path)
        score = ["score", str(candidates), "--scorer", "verifier", "--rule", "rule:rule", "--out", str(scored)]
        assert main(score) == 0
    finally:
        os.chdir(where)
    assert main(["select", str(scored), "--out", str(out), "--json"]) == 0
    card = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows, report = preference_rows(read_jsonl(out), source=str(out))
    assert report.pairs == card["pairs"] == len(rows) > 6
    assert all(row["chosen_score"] > row["rejected_score"] for row in read_jsonl(out))
    assert all(row["prompt"][0]["role"] == "user" for row in rows)
    thumbs = tmp_path / "thumbs.jsonl"
    flags = ["--unpaired", "--top", "0.3", "--bottom", "0.3", "--balance"]
    assert main(["select", str(scored), "--out", str(thumbs), *flags]) == 0
    assert "The data card is in" in capsys.readouterr().out
    assert main(["doctor", str(thumbs)]) in (0, 1)
    assert main(["select", str(scored), "--out", str(thumbs), "--top", "0.3"]) == 2
    assert "--top is for --unpaired" in capsys.readouterr().err
    assert main(["select", str(scored), "--out", str(out), "--test-fraction", "0.5"]) == 0
    kept, held_out = (len(list(read_jsonl(path))) for path in (out, out.with_name("set.test.jsonl")))
    said = f"{kept + held_out} pairs, 0 ups, 0 downs: {kept} rows in {out}, {held_out} in the test file beside it"
    assert said in capsys.readouterr().out


def test_candidates_made_anew_do_not_keep_the_old_scores(folder, tmp_path, capsys):
    rows = list(read_jsonl(folder / "candidates.jsonl"))[:3]
    file, out = tmp_path / "c.jsonl", tmp_path / "s.jsonl"
    flags = ["score", write(file, rows), "--scorer", "verifier", "--rule", "exact", "--answer-column", "prompt"]
    assert main([*flags, "--out", str(out)]) == 0
    before = rows[1]["candidates"][0]["text"]
    rows[1]["candidates"][0]["text"] = "another"
    write(file, rows)
    assert main([*flags, "--out", str(out)]) == 2
    assert f"of the first, {rows[1]['id']!r}, candidates" in capsys.readouterr().err
    rows[1]["candidates"][0]["text"] = before
    rows[2]["answer"] = "a right answer that was mended"
    write(file, rows)
    assert main([*flags, "--out", str(out)]) == 2
    assert f"of the first, {rows[2]['id']!r}, answer" in capsys.readouterr().err


def test_a_row_that_was_withdrawn_stays_and_it_is_said(folder, tmp_path, caplog):
    rows = list(read_jsonl(folder / "candidates.jsonl"))[:3]
    file, out = tmp_path / "c.jsonl", tmp_path / "s.jsonl"
    flags = ["score", write(file, rows), "--scorer", "verifier", "--rule", "exact", "--answer-column", "prompt"]
    assert main([*flags, "--out", str(out)]) == 0
    write(file, rows[1:])
    assert main([*flags, "--out", str(out)]) == 0
    assert f"1 row of an earlier job (first: {rows[0]['id']!r}), none of this one" in caplog.text


def test_another_reward_model_may_not_continue_a_file(folder, tmp_path, capsys):
    out = tmp_path / "s.jsonl"
    assert main(reward(folder, out)) == 0
    assert main([*reward(folder, out), "--max-length", "64"]) == 2
    assert "was begun with other settings (max_length:" in capsys.readouterr().err
    assert main(["score", str(folder / "candidates.jsonl"), "--scorer", "pairrm", "--out", str(out)]) == 2
    assert "needs --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "x", "candidates": "abc"},
        {"prompt": "x", "candidates": [{"txt": "a"}]},
        {"prompt": "x", "candidates": ["a", None]},
        {"prompt": "x", "candidates": []},
        {"prompt": 5, "candidates": ["a"]},
        {"candidates": ["a"]},
    ],
)
def test_rows_that_are_no_candidates_are_refused_before_a_letter_or_a_null_is_scored(tmp_path, capsys, row):
    file = write(tmp_path / "c.jsonl", [{"prompt": "x", "candidates": ["a"]}, row])
    assert main(["score", file, "--scorer", "verifier", "--out", str(tmp_path / "s.jsonl")]) == 2
    assert "1 row (1) of 2 lack a `prompt`" in capsys.readouterr().err
    assert main(["score", write(tmp_path / "c.jsonl", []), "--scorer", "verifier", "--out", "s.jsonl"]) == 2
    assert "c.jsonl has no rows" in capsys.readouterr().err


def test_a_type_that_weights_cannot_have_is_no_choice(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--prompts", "p", "--model", "m", "--out", "o", "--dtype", "float99"])
    assert "--dtype: invalid choice" in capsys.readouterr().err


def test_a_judges_wording_that_is_not_there_and_a_key_for_a_variable_are_refused(folder, tmp_path, capsys):
    judge = ["score", str(folder / "candidates.jsonl"), "--scorer", "judge", "--model", "j", "--url", "http://x:1"]
    judge += ["--out", str(tmp_path / "s.jsonl")]
    assert main([*judge, "--judge-template", str(tmp_path / "none.md")]) == 2
    assert "none.md cannot be read" in capsys.readouterr().err
    assert main([*judge, "--api-key-env", "sk-secret"]) == 2
    assert "sk-secret" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--temperature", "-1"], "--temperature -1.0"),
        (["--top-p", "0"], "--top-p 0.0"),
        (["--map", "prompt=question", "right=answer"], "--map right: only prompt=COLUMN"),
    ],
)
def test_a_wrong_number_or_column_is_said_before_a_model_is_loaded(folder, tmp_path, capsys, given, message):
    command = ["generate", "--prompts", str(folder / "prompts.jsonl"), "--out", str(tmp_path / "c.jsonl"), *given]
    assert main([*command, "--model", str(tmp_path / "no_such_model")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [["generate", "--model", "m", "--prompts"], ["score", "--scorer", "verifier"]])
def test_no_command_writes_over_what_it_reads_or_advises_to_delete_it(tmp_path, capsys, command):
    file = write(tmp_path / "rows.jsonl", [{"id": "a", "prompt": "x", "candidates": ["a"]}])
    assert main([*command, file, "--out", file]) == 2
    assert "Nothing is changed in place" in capsys.readouterr().err


def test_a_model_of_several_labels_is_no_reward_model(tmp_path, capsys):
    config = LlamaConfig(vocab_size=300, num_labels=3, pad_token_id=256, **SIZES)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "three")
    chatml_tokenizer().save_pretrained(tmp_path / "three")
    file = write(tmp_path / "c.jsonl", [{"prompt": "x", "candidates": ["a"]}])
    command = ["score", file, "--scorer", "reward_model", "--model", str(tmp_path / "three")]
    assert main([*command, "--out", str(tmp_path / "s.jsonl")]) == 2
    assert "a reward model has one label" in capsys.readouterr().err


def test_score_says_how_many_candidates_there_were_and_what_they_got(tmp_path, capsys):
    rows = [{"prompt": "1+2", "answer": "3", "candidates": ["The answer is 3.", "4", "3", "Three or 5"]}]
    file = write(tmp_path / "c.jsonl", rows)
    assert main(["score", file, "--scorer", "verifier", "--out", str(tmp_path / "s.jsonl")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("4 candidates of 1 row scored in ")
    assert said[1] == "  scores from 0 to 1, 0.5 on average"


def test_replies_of_a_judge_that_cannot_be_read_are_counted_aloud(tmp_path, capsys):
    file = write(tmp_path / "c.jsonl", [{"prompt": "x", "candidates": ["a", "b"]}])
    judge = ["score", file, "--scorer", "judge", "--model", "j", "--out", str(tmp_path / "s.jsonl")]
    with ModelServer(answer=lambda body: "seven, I would say") as server:
        assert main([*judge, "--url", server.url, "--cache", str(tmp_path / "cache")]) == 0
    said = capsys.readouterr().out
    assert "2 candidates without a score" in said
    assert "judge's replies without a verdict in their JSON: 2." in said


def test_fields_of_the_request_reach_the_server_from_every_verb_and_are_part_of_what_made_a_file(tmp_path, capsys):
    fields = ["--request", "temperature=null", "top_k=7"]
    prompts = write(tmp_path / "p.jsonl", [{"id": "a", "prompt": "How many?"}])
    candidates = write(tmp_path / "c.jsonl", [{"id": "a", "prompt": "How many?", "candidates": [{"text": "7"}]}])
    with ModelServer(answer=lambda body: '{"score": 7}') as server:
        url = ["--model", "m", "--url", server.url]
        made = ["generate", "--prompts", prompts, "-n", "1", *url, "--out", str(tmp_path / "g.jsonl")]
        judged = ["score", candidates, "--scorer", "judge", *url, "--cache", str(tmp_path / "cache")]
        assert main([*made, *fields]) == 0
        assert main([*judged, *fields, "--out", str(tmp_path / "s.jsonl")]) == 0
        assert [(body["top_k"], "temperature" in body) for body in server.bodies] == [(7, False)] * 2
        assert main(made) == 2
        assert main([*judged, "--out", str(tmp_path / "s.jsonl")]) == 2
        assert capsys.readouterr().err.count("'top_k': 7} there, None now") == 2
        assert main([*made, "--request", "temperature"]) == 2
        assert "--request takes FIELD=JSON" in capsys.readouterr().err
