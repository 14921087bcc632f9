"""Ranking files: whose rows are whose, and numbers of the whole pool."""

import gzip
import json
import os
from pathlib import Path

import pytest

from bnf_align.cli.main import main
from bnf_align.evaluation.rank import rank_files
from bnf_align.records import BadInput

PUBLIC = Path(os.environ.get("BNF_ALIGN_DATA", ""))
needs_public_data = pytest.mark.skipif(
    "BNF_ALIGN_DATA" not in os.environ, reason="needs the public data: set BNF_ALIGN_DATA to its folder"
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def battle(question, first, second, winner):
    return {"question_id": question, "model_a": first, "model_b": second, "winner": winner}


def scored(model, scores, **more):
    return [{"session_id": f"s{n}", "model": model, "score": score} | more for n, score in enumerate(scores)]


@pytest.mark.parametrize("baseline", ["gpt-4-0314", "another"])
def test_battles_of_one_model_alone_are_its_own(tmp_path, baseline):
    """Both sides met everyone then: which of the two is the baseline is not to be seen by that."""
    rows = [battle(n, baseline, "m", winner) for n, winner in enumerate(("model_b", "model_b", "model_a", "tie"))]
    found = rank_files([write(tmp_path / "battles.jsonl", rows)], "arena_hard")
    assert {name: result.metrics["win_rate"] for name, result in found.models.items()} == {"m": 62.5}


def test_battles_in_either_order_are_split_by_model(tmp_path):
    rows = [
        battle(1, "gpt-4-0314", "good", "model_b"),
        battle(1, "good", "gpt-4-0314", "tie"),
        battle(1, "bad", "gpt-4-0314", "model_b"),
    ]
    found = rank_files([write(tmp_path / "battles.jsonl", rows)], "arena_hard")
    assert {name: result.metrics["win_rate"] for name, result in found.models.items()} == {"good": 75.0, "bad": 0.0}
    assert found.ranks == {"good": 1, "bad": 2}


@needs_public_data
def test_the_published_answers_give_tokens_and_controlled_win_rates(capsys):
    folder = PUBLIC / "arena_hard"
    files = [str(folder / "battles_gpt-4-0613.jsonl.gz"), "--answers", str(folder / "answers")]
    assert main(["eval", "rank", *files, "--task", "arena_hard", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["models"]["gpt-4-0613"]["metrics"]
    lines = gzip.decompress((folder / "answers" / "gpt-4-0613.jsonl.gz").read_bytes()).splitlines()
    tokens = [json.loads(line)["token_len"] for line in lines]
    assert metrics["average_tokens"] == sum(tokens) / len(tokens)
    assert int(metrics["average_tokens"]) == 354  # as published
    assert f"{metrics['win_rate']:.2f}" == "37.90"
    assert None not in (metrics["win_rate_lc"], metrics["win_rate_style"])


def test_scores_without_lengths_cast_no_vote_and_that_is_said(tmp_path):
    files = [
        write(tmp_path / "a.jsonl", scored("a", [9, 9, 9])),
        write(tmp_path / "b.jsonl", scored("b", [1, 1, 1], output_chars=10)),
    ]
    found = rank_files(files, "wild_bench", anchors={"a": 1000})
    assert found.models["b"].metrics["wb_elo"] == 1000
    assert any(note.startswith("3 scores of a cast no vote") for note in found.notes)
    files[0] = write(tmp_path / "a.jsonl", scored("a", [9, 9, 9], output_chars=10))
    assert rank_files(files, "wild_bench", anchors={"a": 1000}).models["b"].metrics["wb_elo"] < 1000


def test_what_made_a_number_travels_into_the_ranking(tmp_path):
    file = write(tmp_path / "a.jsonl", scored("a", [9], output_chars=10))
    card = {"task": "wild_bench", "template": "abc", "judge": "j", "about": {"command": "c", "seed": 7}}
    (tmp_path / "a.jsonl.card.json").write_text(json.dumps(card))
    about = rank_files([file], "wild_bench").models["a"].provenance
    assert {name: about[name] for name in ("template", "judge", "command", "seed")} == {
        "template": "abc",
        "judge": "j",
        "command": "c",
        "seed": 7,
    }


def test_a_file_without_rows_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"empty\.jsonl has no rows"):
        rank_files([write(tmp_path / "empty.jsonl", [])], "wild_bench")
