"""Inputs that were read wrongly, or not at all, give their right rows; each stands for a kind of fault."""

import json
import os
from pathlib import Path

import pytest

from bnf_align.cli.main import main
from bnf_align.data.read import iter_rows
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources import Options, import_rows
from exports_chat import chatgpt_rating, conversation, node
from exports_public import arena, oasst
from exports_traces import (
    assessment,
    flagged,
    lines,
    mlflow_span,
    mlflow_trace,
    observation,
    opik_trace,
    phoenix_annotation,
    phoenix_span,
    score,
)
from rows import assistant, user
from test_importers import text_of

CASES = Path(os.environ.get("BNF_ALIGN_CASES", Path(__file__).parents[2] / "shared" / "cases"))
COLOUR, FRUIT = [user("Name a colour.")], [user("Name a fruit.")]


def imported(name, *paths, **options):
    rows, report = import_rows(name, paths, Options(**options))
    return list(rows), report


def told(rows) -> list[tuple]:
    """Pairs as (chosen, rejected), single answers as (answer, label)."""
    return [
        (text_of(row["chosen"]), text_of(row["rejected"]))
        if "chosen" in row
        else (text_of(row["completion"]), row["label"])
        for row in rows
    ]


def case(name: str) -> Path:
    if not CASES.is_dir():
        pytest.skip("the cases are not here (BNF_ALIGN_CASES)")
    return CASES / name


# Public sets under their own columns

SETS = {
    "pku_saferlhf": ("pku-saferlhf", [("Blue.", "Seven."), ("Apple.", "Rock.")], {}),
    "chatbot_arena_conversations": (
        "chatbot-arena",
        [("Blue.", "Seven."), ("Seven.", "Blue.")],
        {"a tie between the two answers": [2], "both answers are bad, and neither is the better one": [3]},
    ),
    "arena_55k": ("arena-55k", [("Blue.", "Seven."), ("Seven.", "Blue.")], {"a tie between the two answers": [2]}),
    "helpsteer2": ("helpsteer", [("Blue.", "Seven.")], {}),
    "helpsteer2_preference": ("helpsteer-preference", [("Blue.", "Seven.")], {}),
    "shp": ("shp", [("Blue.", "Seven."), ("Pear.", "Rock.")], {}),
    "math_step_dpo": (
        "math-step-dpo",
        [("Step 1: 2+2=4.\nStep 2: 4+1=5.", "Step 1: 2+2=4.\nStep 2: 4+1=6.")],
        {},
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_a_public_set_is_known_by_its_own_columns_and_read_by_its_winner(name):
    source, pairs, dropped = SETS[name]
    path = case(f"public_sets/{name}.jsonl")
    rows, report = imported("auto", path)
    assert report.notes[0].endswith(f"(`{source}`)")
    assert (told(rows), report.dropped) == (pairs, dropped)
    assert told(iter_rows(path, options=Options())) == pairs  # so `train` reads it as it is


def test_helpsteer_marks_are_thumbs_where_the_scale_is_placed():
    rows, _ = imported("auto", case("public_sets/helpsteer2.jsonl"), up_from=3, down_to=1)
    assert told(rows) == [("Blue.", True), ("Seven.", False)]


def test_ultrainteract_reads_its_trajectory():
    rows, _ = imported("auto", case("implicit_prompt/ultrainteract_pair.jsonl"))
    assert told(rows) == [("It is four.", "The result is five."), ("Six.", "Seven.")]
    assert rows[0]["prompt"] == [user("What is 2+2? Think step by step.")]
    assert rows[1]["prompt"] == [user("What is 3+3?"), assistant("Let me see."), user("Go on.")]


def test_pku_the_safer_answer_is_chosen_where_it_is_asked_for(tmp_path):
    record = {"prompt": "Hi", "response_0": "a", "response_1": "b", "better_response_id": 1, "safer_response_id": 0}
    path = lines(tmp_path / "set.jsonl", [record])
    assert told(imported("pku-saferlhf", path)[0]) == [("b", "a")]
    assert told(imported("pku-saferlhf", path, score_name="safer_response_id")[0]) == [("a", "b")]
    with pytest.raises(BadInput, match="No completion has a score `response_0_severity_level`"):
        imported("pku-saferlhf", path, score_name="response_0_severity_level")


def test_arena_rounds_that_differ_before_the_last_one_make_no_pair(tmp_path):
    told_apart = arena("Hi", "Hello.", "Hey.", True)
    for side in ("conversation_a", "conversation_b"):
        told_apart[side] = [*told_apart[side], user("Why?"), assistant(side)]
    first_round = {**told_apart, "turn": 1}
    second_round = {**told_apart, "turn": 2}
    rows, report = imported("auto", lines(tmp_path / "set.jsonl", [first_round, second_round]))
    assert told(rows) == [("Hello.", "Hey.")]  # MT-bench has both rounds beside a judgement of the first
    assert report.dropped == {"chosen and rejected do not answer one prompt": [1]}


def test_a_winner_that_is_in_no_table_stops_with_every_value_and_the_flag(tmp_path):
    path = lines(tmp_path / "set.jsonl", [arena("Hi", "a", "b", winner) for winner in ("model_a", "left", "left")])
    with pytest.raises(BadInput, match=r"Seen: 2 x left, 1 x model_a.*--label_map left=first\|second\|tie\|both_bad"):
        imported("auto", path)
    rows, _ = imported("auto", path, label_map={"left": "second"})
    assert told(rows) == [("a", "b"), ("b", "a"), ("b", "a")]


def test_helpsteer_prompts_of_several_turns_are_cut_at_their_marks(tmp_path):
    prompt = "Hi\n<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nWhy?"
    records = [{"prompt": prompt, "response": answer, "helpfulness": n} for n, answer in enumerate(("No.", "So."))]
    rows, _ = imported("auto", lines(tmp_path / "set.jsonl", records))
    assert rows[0]["prompt"] == [user("Hi"), assistant("Hello."), user("Why?")]
    assert told(rows) == [("So.", "No.")]


@pytest.mark.parametrize("form", ["messages", "tree"])
def test_openassistant_the_best_and_the_worst_answer_to_a_turn_are_a_pair(tmp_path, form):
    answers = [oasst(f"a{rank}", "q", "assistant", f"rank {rank}", rank=rank) for rank in (2, 0, 1)]
    asked = oasst("q", None, "prompter", "Hi")
    later = [oasst("q2", "a0", "prompter", "Why?"), oasst("b0", "q2", "assistant", "Best.", rank=0)]
    later += [
        oasst("b1", "q2", "assistant", "Worst.", rank=1),
        oasst("b2", "q2", "assistant", "Gone.", rank=2, deleted=True),
    ]
    if form == "tree":
        answers[1]["replies"] = [{**later[0], "replies": later[1:]}]
        records = [{"message_tree_id": "m1", "prompt": {**asked, "replies": answers}}]
    else:
        records = [*later, *answers, asked]
    rows, _ = imported("auto", lines(tmp_path / "set.jsonl", records))
    assert sorted(told(rows)) == [("Best.", "Worst."), ("rank 0", "rank 2")]
    later_prompt = next(row["prompt"] for row in rows if text_of(row["chosen"]) == "Best.")
    assert later_prompt == [user("Hi"), assistant("rank 0"), user("Why?")]


# Tables of two answers and a winner

DUELS = "q,a,b,winner\nHi,Hello,What?,left\nHi,Hm,Hey,right\nHi,x,y,tie\nHi,v,w,none\n"
SIDES = {"prompt": "q", "first": "a", "second": "b"}
MEANS = {"left": "first", "right": "second", "tie": "tie", "none": "both_bad"}


@pytest.fixture
def duels(tmp_path):
    path = tmp_path / "duels.csv"
    path.write_text(DUELS)
    return path


def test_a_table_of_two_answers_is_read_by_its_winner(duels):
    rows, report = imported("table", duels, column_map=SIDES, winner="winner", label_map=MEANS)
    assert rows == [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
        {"prompt": "Hi", "chosen": "Hey", "rejected": "Hm"},
    ]
    assert report.dropped == {
        "a tie between the two answers": [2],
        "both answers are bad, and neither is the better one": [3],
    }
    assert any("1 x left read as the first answer, 1 x right read as the second one" in note for note in report.notes)


def test_every_value_of_a_winner_is_asked_for(duels):
    with pytest.raises(BadInput, match=r"Seen: 1 x left, 1 x right, 1 x tie, 1 x none.*--label_map left=first\|"):
        imported("table", duels, column_map=SIDES, winner="winner")
    with pytest.raises(BadInput, match="of two answers a value is mapped to first, second, tie, both_bad"):
        imported("table", duels, column_map=SIDES, winner="winner", label_map={"left": "up"})
    with pytest.raises(BadInput, match="no winner is written so"):
        imported("table", duels, column_map=SIDES, winner="winner", label_map={"links": "first"})


def test_a_map_that_takes_one_side_for_the_better_one_beside_a_winner_is_refused(duels):
    names = {"prompt": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(BadInput, match=r"Column `winner`.*--map prompt=q first=a second=b --winner winner"):
        imported("table", duels, column_map=names)


def test_winner_needs_its_columns_and_belongs_to_a_table(duels):
    with pytest.raises(BadInput, match="--map second=COLUMN"):
        imported("table", duels, column_map={"prompt": "q", "first": "a"}, winner="winner")
    with pytest.raises(BadInput, match="--winner names a column of a `table`"):
        import_rows("auto", [duels], Options(winner="winner"))


def test_winner_on_the_command_line(duels, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    flags = ["--map", "prompt=q", "first=a", "second=b", "--winner", "winner", "--out", str(out)]
    means = ["--label-map", *(f"{value}={side}" for value, side in MEANS.items())]
    assert main(["import", "table", str(duels), *flags, *means]) == 1
    assert [json.loads(line)["chosen"] for line in out.read_text().splitlines()] == ["Hello", "Hey"]
    assert "2 pairs, 0 ups, 0 downs" in capsys.readouterr().out


# Every row's kind counts


def test_an_ms_swift_file_that_begins_with_thumbs_keeps_its_pairs(tmp_path):
    talk = [user("Hi"), assistant("Hello")]
    thumbs = [{"messages": talk, "label": False}] * 2
    pair = {"messages": [user("Why?"), assistant("So.")], "rejected_response": "No."}
    path = lines(tmp_path / "swift.jsonl", [*thumbs, pair])
    for rows in (imported("auto", path)[0], list(iter_rows(path, options=Options()))):
        assert ("So.", "No.") in told(rows)
        assert sum("completion" in row for row in rows) == 1  # the two thumbs are of one answer


def test_a_file_of_two_kinds_that_nobody_reads_together_is_named_with_the_rows(tmp_path):
    hello = {"prompt": "Hi", "response_0": "a", "response_1": "b", "better_response_id": 1}
    shp = {"history": "Hi", "human_ref_A": "a", "human_ref_B": "b", "labels": 1}
    path = lines(tmp_path / "mixed.jsonl", [hello, hello, shp])
    with pytest.raises(BadInput, match=r"several kinds.*pku-saferlhf \(mixed.jsonl, row 0\); shp \(.*row 2\)"):
        imported("auto", path)


# Chats, traces and annotations


@pytest.mark.parametrize("prompt", ["\n\nHuman: Hi\n\nAssistant:", "\n\nHuman: Hi"])
def test_hh_a_whole_transcript_beside_its_prompt_is_not_repeated(tmp_path, prompt):
    pair = {side: f"\n\nHuman: Hi\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    rows, _ = imported("hh", lines(tmp_path / "hh.jsonl", [{"prompt": prompt, **pair}]))
    assert rows == [{"prompt": [user("Hi")], "chosen": [assistant("chosen")], "rejected": [assistant("rejected")]}]


def test_an_answer_to_another_prompt_than_the_one_beside_it_makes_no_pair(tmp_path):
    pair = {side: f"\n\nHuman: Bye\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    path = lines(tmp_path / "hh.jsonl", [{"prompt": "\n\nHuman: Hi\n\nAssistant:", **pair}])
    with pytest.raises(BadInput, match="chosen and rejected do not answer one prompt: 1 row"):
        imported("hh", path)


def test_langfuse_exports_of_its_pages_have_scores_in_columns():
    path = case("langfuse_ui_traces/langfuse_ui_traces.json")
    for name, options in (("langfuse", {"score_name": "user-feedback"}), ("auto", {})):
        rows, _ = imported(name, path, **options)
        assert told(rows) == [("Blue.", True), ("Rock.", False)]
        assert [row["prompt"] for row in rows] == [COLOUR, FRUIT]


def test_langfuse_a_column_of_another_name_or_scale_is_asked_for(tmp_path):
    def traces(name, *values):
        return [
            {
                "id": f"t{n}",
                "timestamp": "x",
                "name": "c",
                "input": "Hi",
                "output": f"A{n}",
                "tags": ["a"],
                name: [value],
            }
            for n, value in enumerate(values)
        ]

    twice = [{**trace, "user-feedback": [1, 1, 0]} for trace in traces("user-feedback", 1)]
    rows, report = imported("langfuse", lines(tmp_path / "0.jsonl", twice))
    assert told(rows) == [("A0", True)]  # three people, of whom two liked it
    assert any(note.startswith("2 more ratings") for note in report.notes)
    with pytest.raises(BadInput, match="Seen: 1 x 1, 1 x 0"):
        imported("langfuse", lines(tmp_path / "1.jsonl", traces("toxic", 1, 0)))
    with pytest.raises(BadInput, match="Seen: 1 x 1, 1 x 5"):
        imported("langfuse", lines(tmp_path / "2.jsonl", traces("user-feedback", 1, 5)))


@pytest.mark.parametrize("target", ["o1", None])
def test_langfuse_an_observation_or_a_score_that_was_exported_twice_is_one(tmp_path, target):
    twice = [observation("o1", "t1", "Why?", "So.")] * 2
    lines(tmp_path / "observations_v2" / "1.jsonl", twice)
    old, new = score(1, "t1", 0, observation_id=target), score(1, "t1", 1, observation_id=target)
    lines(tmp_path / "scores" / "1.jsonl", [old, new])
    rows, report = imported("langfuse", tmp_path)
    assert (told(rows), report.dropped) == ([("So.", True)], {})  # the later export of the score counts


def test_gradio_of_a_like_and_a_dislike_the_last_click_counts(tmp_path):
    talk = [user("Hi"), assistant("Hello")]
    log = flagged(tmp_path / "log.csv", [(talk, 1, "Like"), (talk, 1, "Dislike")])
    rows, report = imported("gradio", log)
    assert (told(rows), report.dropped) == ([("Hello", False)], {"a thumb that was changed afterwards": [0]})
    log = flagged(tmp_path / "log.csv", [(talk, 1, value) for value in ("Like", "Dislike", "Like")])
    assert told(imported("gradio", log)[0]) == [("Hello", True)]


@pytest.mark.parametrize("sides", [("left", "right"), ("text1", "text2")])
def test_labelstudio_names_that_are_keys_of_the_data_are_read_and_said(tmp_path, sides):
    data = {"prompt": "Hi", sides[0]: "Hello", sides[1]: "What?"}
    result = {"from_name": "pw", "to_name": ",".join(sides), "type": "pairwise", "value": {"selected": "right"}}
    task = {"id": 1, "data": data, "annotations": [{"id": 1, "result": [result]}]}
    small = {**data, "id": 1, "pw": [{"selected": "right"}], "annotator": 1, "annotation_id": 1}
    small |= dict.fromkeys(("created_at", "updated_at", "lead_time"), "x")
    for record in (task, small):
        rows, report = imported("auto", lines(tmp_path / "export.jsonl", [record]))
        assert told(rows) == [("What?", "Hello")]
        assert any(f"left is `{sides[0]}` and right is `{sides[1]}`" in note for note in report.notes)


def test_phoenix_tables_flattened_messages_and_labels_say_the_same(tmp_path):
    nested = phoenix_span("s1", "Hi", "Hello")
    flat = {
        "context.span_id": "s1",
        "context.trace_id": "t0",
        "span_kind": "LLM",
        "parent_id": None,
        "attributes.llm.input_messages.0.message.role": "user",
        "attributes.llm.input_messages.0.message.content": "Hi",
        "attributes.output.value": "Hello",
    }
    table = {"context.span_id": "s1", "name": "feedback", "annotator_kind": "HUMAN", "result.label": "thumbs-down"}
    for span in (nested, flat):
        for note in (phoenix_annotation(1, "s1", 0), phoenix_annotation(1, "s1", None, "thumbs-down"), table):
            lines(tmp_path / "spans.jsonl", [span])
            lines(tmp_path / "annotations.jsonl", [note])
            rows, _ = imported("auto", tmp_path)
            assert (rows[0]["prompt"], told(rows)) == ([user("Hi")], [("Hello", False)])


def test_mlflow_an_assessment_of_a_trace_is_of_its_only_model_call_or_else_of_its_own_texts(tmp_path):
    said = {"messages": [{"role": "system", "content": "Be brief."}, user("Why?")]}
    one = mlflow_trace(
        "t1",
        [assessment(1, False), assessment(2, True, valid=False), assessment(3, None, feedback=None, expectation={})],
        mlflow_span("s0", {"question": "Why?"}, {"docs": ["x", "y"]}, kind="CHAIN"),
        mlflow_span("s1", said, {"choices": [{"message": assistant("So.")}]}, parent="s0"),
        request=json.dumps({"question": "Why?"}),
        response=json.dumps("So."),
    )
    two = mlflow_trace(
        "t2",
        [assessment(4, True), assessment(5, False, span_id="s3")],
        mlflow_span("s2", "plan", "a plan", parent="s9"),
        mlflow_span("s3", "act", "an act", parent="s9"),
        request=json.dumps("Who?"),
        response=json.dumps("You."),
    )
    rows, _ = imported("auto", lines(tmp_path / "traces.jsonl", [one, two]))
    assert [(row["prompt"], *told([row])[0]) for row in rows] == [
        ([{"role": "system", "content": "Be brief."}, user("Why?")], "So.", False),
        ([user("Who?")], "You.", True),
        ([user("act")], "an act", False),
    ]
    assert rows[0]["rater"] == "ann"


def test_opik_a_trace_is_rated_for_its_only_model_call(tmp_path):
    trace = opik_trace(
        "t1", {"question": "Why?"}, {"answer": "So."}, {"name": "thumbs", "value": 0.0, "reason": "No."}
    )
    call = opik_trace("s1", {"messages": [user("Why, in short?")]}, {"message": assistant("So.")})
    call |= {"trace_id": "t1", "parent_span_id": None, "type": "llm", "model": "llama"}
    rows, _ = imported("auto", lines(tmp_path / "traces.jsonl", [trace, call]))
    assert (rows[0]["prompt"], told(rows)) == ([user("Why, in short?")], [("So.", False)])
    assert (rows[0]["reason"], rows[0]["model"]) == ("No.", "llama")


def test_chatgpt_what_the_person_did_not_read_is_no_part_of_the_conversation(tmp_path):
    chat = conversation(
        "c1",
        node("root", None, "system"),
        node("s", "root", "system", "secret", metadata={"is_visually_hidden_from_conversation": True}),
        node("q", "s", "user", "Why?"),
        node("call", "q", "assistant", "search(why)", recipient="browser"),
        node("found", "call", "tool", "much"),
        node("a", "found", "assistant", "So."),
        node("b", "q", "assistant", "No."),
        node("p", "b", "user", {"asset_pointer": "file"}, content={"content_type": "multimodal_text", "parts": [{}]}),
        node("c", "p", "assistant", "A cat."),
    )
    ratings = [chatgpt_rating("x", "c1", "thumbsUp", message_id="a"), chatgpt_rating("b", "c1", "thumbs_down")]
    ratings += [chatgpt_rating("c", "c1", "thumbs_up"), chatgpt_rating("call", "c1", "thumbs_up")]
    ratings += [chatgpt_rating("gone", "c9", "thumbs_up", content=json.dumps({"text": "why not"}))]
    (tmp_path / "conversations.json").write_text(json.dumps([chat]))
    (tmp_path / "message_feedback.json").write_text(json.dumps(ratings))
    (tmp_path / "user.json").write_text(json.dumps({"id": "user-7", "email": "a@b.c"}))
    rows, report = imported("auto", tmp_path)
    assert told(rows) == [("So.", True), ("No.", False)]
    assert all(row["prompt"] == [user("Why?")] for row in rows)
    assert report.dropped == {
        "a message that is not text": [2],
        "what is rated is not an assistant's answer": [3],
        "the answer is not in its thread": [4],
    }
    with pytest.raises(BadInput, match="hold no ratings of ChatGPT's export"):
        imported("chatgpt", tmp_path / "conversations.json")


def test_anythingllm_says_that_its_rows_have_no_history(tmp_path):
    row = {"id": 1, "prompt": "Hi", "response": "Hello", "sent_at": "x", "workspace": "w", "username": "ann"}
    path = lines(tmp_path / "chats.jsonl", [row | {"rating": value} for value in ("BAD", "--")])
    rows, report = imported("auto", path)
    assert (told(rows), rows[0]["rater"]) == ([("Hello", False)], "ann")
    assert any("what was said before" in note for note in report.notes)
    assert report.dropped == {"a rating that means neither up nor down": [1]}


# Reports


def test_ratings_of_answers_that_have_no_row_are_not_counted_as_merged(tmp_path):
    talk = [user("Hi"), assistant("Hello")]
    records = [{"messages": talk, "label": label} for label in (True, False, True, False)]
    records += [{"messages": [user("Why?"), assistant("So.")], "label": True}] * 2
    _, report = imported("ms-swift", lines(tmp_path / "rows.jsonl", records))
    assert report.dropped == {"its raters disagree (--raters majority)": [0]}
    assert "1 more rating of answers rated before, merged into one row each (--raters majority)" in report.notes
    assert "3 more ratings of answers whose raters disagree, left out (--raters majority)" in report.notes


def test_a_row_that_is_left_out_twice_is_one_row():
    report = DataReport("x")
    report.drop(Reason("no_rating"), 0)
    report.drop(Reason("no_rating"), 0)
    assert report.lines()[1] == "  left out 1 row (0): no rating"


# Tables and LLaMA-Factory's index

TEXTS = {"json_text_messages/nested_json_strings.jsonl", "small/prompt_str_completion_list.jsonl"}
TEXTS |= {"small/chosen_is_object2.jsonl"}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_messages_as_text_or_alone_are_messages_in_a_table(name):
    rows, _ = imported("table", case(name))
    assert len(rows) == 1
    assert rows[0]["prompt"] == ([user("2+2?")] if "object" in name else COLOUR)
    assert all(isinstance(rows[0][side], list) for side in ("chosen", "rejected"))


def test_json_that_a_model_answered_is_no_conversation(tmp_path):
    said = '[{"type": "text", "value": "x"}]'
    row = {"prompt": "As JSON?", "chosen": said, "rejected": '{"content": 1, "type": "a"}'}
    assert imported("table", lines(tmp_path / "t.jsonl", [row]))[0] == [row]


def test_a_label_that_is_no_number_is_none_and_a_csv_cell_is_a_number(tmp_path):
    for name in ("auto", "table"):
        rows, report = imported(name, case("small/nan_label.jsonl"))
        assert (told(rows), report.dropped) == ([("d", True), ("f", False)], {"no rating": [0]})
        (tmp_path / "t.csv").write_text("prompt,completion,label\na,b,1\nc,d,0\ne,f,\n")
        rows, report = imported(name, tmp_path / "t.csv")
        assert (told(rows), report.dropped) == ([("b", True), ("d", False)], {"no rating": [2]})


@pytest.mark.parametrize("empty", [[], "", "[]"])
def test_an_empty_picture_column_is_no_picture(tmp_path, empty):
    rows = [{"messages": [user("Hi"), assistant(f"A{up}")], "label": up, "images": empty} for up in (True, False)]
    assert told(imported("ms-swift", lines(tmp_path / "rows.jsonl", rows))[0]) == [("ATrue", True), ("AFalse", False)]


def test_llamafactory_columns_and_roles_are_what_its_index_calls_them(tmp_path):
    turns = [{"who": "person", "said": "Hi"}, {"who": "bot", "said": "Hello"}]
    pair = {"chat": turns[:1], "good": {"who": "bot", "said": "Hello"}, "bad": {"who": "bot", "said": "What?"}}
    index = {
        "mine": {
            "file_name": "thumbs.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "chat", "kto_tag": "ok"},
            "tags": {"role_tag": "who", "content_tag": "said", "user_tag": "person", "assistant_tag": "bot"},
        }
    }
    index["pairs"] = {**index["mine"], "file_name": "pairs.jsonl"}
    index["pairs"]["columns"] = {"messages": "chat", "chosen": "good", "rejected": "bad"}
    (tmp_path / "dataset_info.json").write_text(json.dumps(index))
    lines(tmp_path / "thumbs.jsonl", [{"chat": turns, "ok": False}])
    lines(tmp_path / "pairs.jsonl", [pair])
    for name in ("auto", "llamafactory"):
        rows, _ = imported(name, tmp_path)
        assert told(rows) == [("Hello", "What?"), ("Hello", False)]
        assert rows[0]["prompt"] == rows[1]["prompt"] == [user("Hi")]


def test_llamafactory_an_index_that_turns_the_columns_round_is_obeyed(tmp_path):
    columns = {"prompt": "prompt", "chosen": "rejected", "rejected": "chosen"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"a": {"file_name": "a.jsonl", "columns": columns}}))
    lines(tmp_path / "a.jsonl", [{"prompt": "Hi", "chosen": "What?", "rejected": "Hello"}])
    assert told(imported("auto", tmp_path)[0]) == [("Hello", "What?")]
