"""Token ids equal TRL's, the right ones are scored, and what does not fit is cut or dropped and counted."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import datasets
import pytest

from bnf_align.data.responses import Responses
from bnf_align.data.rows import preference_rows
from bnf_align.data.template import merge_system
from bnf_align.data.tokenize import FEATURES, _shared_out, end_token_id, show_tokens, tokenize_rows
from bnf_align.records import BadInput, DataReport
from rows import user
from tiny_models import byte_tokenizer, chatml_tokenizer, gemma_tokenizer, llama3_tokenizer, plain_tokenizer
from tiny_nets import tiny_llama

ALL_TOKENIZERS = [chatml_tokenizer, gemma_tokenizer, llama3_tokenizer]


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def responses_of(raw, tokenizer, max_length=None, **options):
    rows, report = preference_rows(raw, source="data")
    return tokenize_rows(rows, tokenizer, report, max_length=max_length, **options), report


def scored_texts(responses, tokenizer):
    """Of every response the scored stretches, as text."""
    texts = []
    for ids, mask in zip(responses["input_ids"], responses["completion_mask"], strict=True):
        starts = [i for i, hit in enumerate(mask) if hit and not (i and mask[i - 1])]
        stops = [i for i, hit in enumerate(mask) if hit and not (i + 1 < len(mask) and mask[i + 1])]
        texts.append([tokenizer.decode(ids[a : b + 1]) for a, b in zip(starts, stops, strict=True)])
    return texts


PLAIN = [{"prompt": f"Question {i}: ", "completion": f"answer é {i}", "label": i % 2 == 0} for i in range(4)]
PLAIN.append({"prompt": "q", "completion": "ends itself<eos>", "label": True})
CHAT = [
    {"prompt": [user(f"q{i}"), assistant("so"), user("more")], "completion": [assistant(f"a{i}")], "label": i % 2 == 0}
    for i in range(4)
]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
WITH_TOOLS = [
    {
        **row,
        "tools": json.dumps(TOOLS),
        "chat_template_kwargs": {"think": "<think>"} if row["label"] else {"think": ""},
    }
    for row in CHAT
]
PAIRS = [{"prompt": [user(f"q{i}")], "chosen": [assistant("yes")], "rejected": [assistant("no no")]} for i in range(3)]
IMPLICIT = [
    {"chosen": [*row["prompt"], *row["chosen"]], "rejected": [*row["prompt"], *row["rejected"]]} for row in PAIRS
]


def trl_ids(raw, tokenizer, tmp_path):
    """Prompt and completion ids, and label, of each response as `trl.KTOTrainer` tokenises them."""
    from trl import KTOConfig, KTOTrainer

    config = KTOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        bf16=False,
        report_to=[],
        use_cpu=True,
        max_length=None,
    )
    models = [tiny_llama(len(tokenizer)) for _ in range(2)]
    trainer = KTOTrainer(
        *models, args=config, train_dataset=datasets.Dataset.from_list(raw), processing_class=tokenizer
    )
    return [(row["prompt_ids"], row["completion_ids"], row["label"]) for row in trainer.train_dataset]


@pytest.mark.golden
@pytest.mark.parametrize(
    ("raw", "make_tokenizer"),
    [
        (PLAIN, plain_tokenizer),
        (PLAIN, llama3_tokenizer),
        (CHAT, chatml_tokenizer),
        (CHAT, gemma_tokenizer),
        (CHAT, llama3_tokenizer),
        (WITH_TOOLS, chatml_tokenizer),
        (PAIRS, chatml_tokenizer),
        (IMPLICIT, gemma_tokenizer),
    ],
    ids=["plain", "plain-bos", "chatml", "gemma", "llama3", "tools", "pairs", "implicit-prompt"],
)
def test_prompt_and_completion_tokens_equal_those_of_trl_kto(raw, make_tokenizer, tmp_path):
    tokenizer = make_tokenizer()
    ours, _ = responses_of(raw, tokenizer)
    split = []
    for ids, mask, label in zip(ours["input_ids"], ours["completion_mask"], ours["label"], strict=True):
        start = mask.index(True)
        end = tokenizer.decode(ids[start:]).rstrip("\n")
        assert tokenizer.decode([token for token, hit in zip(ids, mask, strict=True) if hit]) == end
        split.append((ids[:start], ids[start:], label))
    theirs = trl_ids(raw, tokenizer, tmp_path)
    if "chosen" in raw[0]:  # TRL has all chosen responses first, then all rejected ones
        theirs = [theirs[i + j] for i in range(len(raw)) for j in (0, len(raw))]
    assert split == theirs


def test_one_record_per_response_in_file_order_with_the_chosen_first():
    ours, report = responses_of([PAIRS[0], PLAIN[1], PAIRS[1]], chatml_tokenizer())
    assert ours["row"][:] == [0, 0, 1, 2, 2]
    assert ours["pair_id"][:] == [0, 0, 1, 2, 2]
    assert ours["label"][:] == [True, False, False, True, False]
    assert (report.pairs, report.ups, report.downs) == (2, 0, 1)
    assert ours.features == FEATURES
    assert ours.cache_files == []


def test_an_answer_is_scored_whole_with_its_end_and_nothing_of_the_prompt():
    for make_tokenizer, end in zip(ALL_TOKENIZERS, ["<|im_end|>", "<end_of_turn>", "<|eot_id|>"], strict=True):
        tokenizer = make_tokenizer()
        ours, _ = responses_of([CHAT[0], PAIRS[0]], tokenizer)
        assert scored_texts(ours, tokenizer) == [[f"a0{end}"], [f"yes{end}"], [f"no no{end}"]]
        assert all(end >= 0 for end in ours["end"])
    ours, _ = responses_of(PLAIN[:1], plain_tokenizer())
    assert scored_texts(ours, plain_tokenizer()) == [["answer é 0<eos>"]]


def test_of_an_answer_of_several_turns_only_the_assistant_is_scored():
    answer = [
        assistant(None, tool_calls=[{"function": {"name": "add"}}]),
        {"role": "tool", "content": "4"},
        assistant("It is 4."),
    ]
    tokenizer = chatml_tokenizer()
    ours, _ = responses_of([{"prompt": [user("2+2?")], "completion": answer, "label": True}], tokenizer)
    call = '<tool_call>{"name": "add"}</tool_call><|im_end|>'
    assert scored_texts(ours, tokenizer) == [[call, "It is 4.<|im_end|>"]]

    answer = [assistant("a"), user("and?"), assistant("b"), user("so?"), assistant("c")]
    for make_tokenizer in ALL_TOKENIZERS:
        tokenizer = make_tokenizer()
        ours, _ = responses_of([{"prompt": [user("q")], "completion": answer, "label": True}], tokenizer)
        end = tokenizer.decode([end_token_id(tokenizer)])
        assert scored_texts(ours, tokenizer)[0] == [f"a{end}", f"b{end}", f"c{end}"]


def test_a_template_that_rewrites_old_turns_still_has_each_turn_scored_to_its_end():
    """Qwen3 writes reasoning in the last turn only, so a turn rendered last is no prefix of the whole."""
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
        "{%- if message.role == 'assistant' and loop.last %}{{- '<think></think>' }}{%- endif %}"
        "{{- message.content + '<|im_end|>\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    )
    answer = [assistant("first"), user("and?"), assistant("second")]
    ours, _ = responses_of([{"prompt": [user("q")], "completion": answer, "label": True}], tokenizer)
    assert scored_texts(ours, tokenizer) == [["first<|im_end|>", "second<|im_end|>"]]


def test_the_end_token_is_the_one_the_template_ends_a_turn_with():
    makers = [*ALL_TOKENIZERS, plain_tokenizer]
    names = [make().convert_ids_to_tokens(end_token_id(make())) for make in makers]
    assert names == ["<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<eos>"]


def test_a_system_message_is_merged_into_the_first_user_turn_on_request():
    system = {"role": "system", "content": "Be kind."}
    raw = [{"prompt": [system, user("q")], "completion": [assistant("a")], "label": True}]
    tokenizer = gemma_tokenizer()
    ours, _ = responses_of(raw, tokenizer, merge_system_prompt=True)
    text = tokenizer.decode(ours["input_ids"][0])
    assert text == ("<bos><start_of_turn>user\nBe kind.\n\nq<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n")
    assert merge_system([system, system, assistant("x"), user("q")]) == [
        assistant("x"),
        user("Be kind.\n\nBe kind.\n\nq"),
    ]
    assert merge_system([user("q")]) == [user("q")]
    assert merge_system([system]) == [user("Be kind.")]


def test_a_template_that_takes_system_messages_keeps_them_in_their_own_turn():
    raw = [{"prompt": [{"role": "system", "content": "S"}, user("q")], "completion": [assistant("a")], "label": True}]
    tokenizer = chatml_tokenizer()
    ours, _ = responses_of(raw, tokenizer)
    assert tokenizer.decode(ours["input_ids"][0]).startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq")


def test_every_response_has_exactly_one_bos_even_where_the_text_brings_its_own():
    tokenizer = llama3_tokenizer()
    ours, report = responses_of([*CHAT[:1], *PLAIN[:1], {**PLAIN[1], "prompt": "<|begin_of_text|>q"}], tokenizer)
    assert [ids.count(tokenizer.bos_token_id) for ids in ours["input_ids"]] == [1, 1, 1]
    assert scored_texts(ours, tokenizer)[2] == ["answer é 1<|end_of_text|>"]
    assert "the text begins with BOS, which the tokenizer adds too; one is kept: 1 row (2)" in report.notes


def test_the_first_token_is_never_scored():
    ours, _ = responses_of([{"prompt": "", "completion": "abc", "label": True}], plain_tokenizer())
    assert ours["completion_mask"][0] == [False, True, True, True]


@pytest.mark.parametrize("end", ["<eos>", "<eos>\n", " <eos>"])
def test_a_text_that_brings_its_end_token_along_gets_no_other(end):
    raw = [{"prompt": "q", "completion": f"a{end}", "label": True}, PLAIN[0]]
    ours, report = responses_of(raw, plain_tokenizer())
    assert scored_texts(ours, plain_tokenizer())[0] == [f"a{end}"]
    assert ours["input_ids"][0][ours["end"][0]] == plain_tokenizer().eos_token_id
    assert report.notes == ["the answer brings its end token along, so none is added: 1 row (0)"]
    assert report.warnings == []


def test_a_text_that_is_templated_already_ends_with_the_templates_end():
    tokenizer = chatml_tokenizer()
    raw = [{"prompt": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "label": True}]
    ours, report = responses_of([{**raw[0], "completion": "Blue.<|im_end|>\n"}], tokenizer)
    assert scored_texts(ours, tokenizer) == [["Blue.<|im_end|>\n"]]
    assert tokenizer.decode([ours["input_ids"][0][ours["end"][0]]]) == "<|im_end|>"
    assert any("the chat template is not applied: 1 row (0). That is right" in note for note in report.notes)
    assert "the answer brings its end token along, so none is added: 1 row (0)" in report.notes


def test_an_end_token_inside_an_answer_is_pointed_out():
    said = (
        "the text of the answer holds an end token before its end, so the model is taught to stop there and to go on: "
    )
    chat = {"prompt": [user("q")], "completion": [assistant("Blue.<|im_end|>")], "label": True}
    _, report = responses_of([chat, CHAT[0]], chatml_tokenizer())
    assert report.warnings == [said + "1 row (0)"]
    plain = {"prompt": "q", "completion": "Blue.<eos> Red.", "label": True}
    assert responses_of([PLAIN[0], plain], plain_tokenizer())[1].warnings == [said + "1 row (1)"]
    several = {**chat, "completion": [assistant("a"), user("and?"), assistant("b")]}
    assert responses_of([several], chatml_tokenizer())[1].warnings == []


def test_messages_need_neither_an_eos_nor_a_padding_token():
    tokenizer = chatml_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = None
    ours, _ = responses_of([*CHAT[:2], PAIRS[0]], tokenizer)
    whole, _ = responses_of([*CHAT[:2], PAIRS[0]], chatml_tokenizer())
    assert ours.to_dict() == whole.to_dict()
    batch = Responses(ours).collate([0, 1, 2], tokenizer.pad_token_id)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert not batch["completion_mask"][batch["attention_mask"] == 0].any()
    with pytest.raises(BadInput, match=r"has no EOS token.*--eos_token"):
        responses_of([CHAT[0], PLAIN[0]], tokenizer)


def test_tokens_that_the_model_has_no_embedding_for_stop_with_both_numbers_and_the_mend():
    tokenizer = byte_tokenizer(["<pad>", "<eos>", "<tool>", "</tool>"], eos_token="<eos>", pad_token="<pad>")
    raw = [{"prompt": "2+2=", "completion": "<tool>4</tool>", "label": True}, PLAIN[0]]
    with pytest.raises(BadInput) as error:
        responses_of(raw, tokenizer, vocab_size=258)
    assert str(error.value).startswith(
        "data: the model's embedding has 258 rows, the tokenizer 260 tokens, and 2 of those that the model has no row "
        "for stand in 1 row (0): '<tool>' (258), '</tool>' (259). "
    )
    assert "model.resize_token_embeddings(len(tokenizer))" in str(error.value)
    with pytest.raises(BadInput, match=r"has 259 rows, .* and 1 of those .*: '</tool>' \(259\)\. "):
        responses_of(raw, tokenizer, vocab_size=259)
    whole, _ = responses_of(raw, tokenizer)
    assert responses_of(raw, tokenizer, vocab_size=260)[0].to_dict() == whole.to_dict()
    assert responses_of(raw[1:], tokenizer, vocab_size=258)[1].ups == 1
    assert len(responses_of(raw, tokenizer, max_length=5, vocab_size=259)[0]) == 1  # what is cut off asks for no row


@pytest.mark.parametrize("max_length", [-5, 0, 1])
def test_a_length_without_room_for_an_answer_is_refused(max_length):
    with pytest.raises(
        BadInput, match=rf"--max_length {max_length}: a prompt and an answer have at least a token each"
    ):
        responses_of(PLAIN, plain_tokenizer(), max_length)


MANY = [
    row
    for i in range(300)
    for row in (
        {"prompt": [user(f"q{i}")], "completion": [assistant(f"a{i}")], "label": i % 3 == 0},
        {"prompt": f"p{i}", "chosen": "x" * (i % 40), "rejected": "y"},
        {"prompt": [user("q"), user("r")], "completion": [assistant(f"b{i}")], "label": True},
    )
]


@pytest.mark.parametrize("num_proc", [2, 5])
def test_the_number_of_processes_changes_neither_tokens_nor_report(num_proc):
    alone, said = responses_of(MANY, gemma_tokenizer(), 36, num_proc=1)
    shared, said_too = responses_of(MANY, gemma_tokenizer(), 36, num_proc=num_proc)
    assert shared.to_dict() == alone.to_dict()
    assert said_too == said
    assert len(said.dropped) == 2
    assert said.cut


def test_the_rows_taken_at_a_time_change_neither_tokens_nor_numbers(monkeypatch):
    rows = [{"prompt": f"q{i % 3}", "chosen": " yes", "rejected": f" no {i}"} for i in range(7)] + PLAIN
    whole, _ = responses_of(rows, plain_tokenizer())
    monkeypatch.setattr("bnf_align.data.tokenize.ROWS_OF_A_TABLE", 2)
    parts, _ = responses_of(rows, plain_tokenizer())
    assert parts.features == FEATURES
    assert parts.to_dict() == whole.to_dict()
    assert whole["prompt_id"][:8] == [0, 0, 1, 1, 2, 2, 0, 0]  # a prompt is known beyond its table


def test_processes_take_the_tokenizer_as_it_is_now():
    tokenizer = chatml_tokenizer()
    before, _ = responses_of(CHAT, tokenizer, num_proc=2)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>\\n", "<|im_end|>")
    after, _ = responses_of(CHAT, tokenizer, num_proc=2)
    assert [len(ids) for ids in after["input_ids"]] == [len(ids) - 4 for ids in before["input_ids"]]


ONCE = """
import gc, json, sys
from accelerate import PartialState
rank = PartialState(cpu=True).process_index
from bnf_align import BadInput, PreferenceConfig
from bnf_align.data.prepare import checked_rows, tokenized
from tiny_models import gemma_tokenizer
rows = json.loads(sys.stdin.read())
tokenizer = gemma_tokenizer() if rank == 0 else None  # the other process gets what this one has made
said = []
for max_length in (36, 1):
    config = PreferenceConfig(output_dir="", use_cpu=True, loss_type="dpo")
    config.max_length = max_length  # which it would refuse
    checked, report = checked_rows("train", rows, config)
    try:
        said.append([tokenized(checked, report, tokenizer, config).to_dict(), report.as_dict()])
    except BadInput as error:
        said.append(str(error))
print(json.dumps(said))
PartialState().destroy_process_group()
gc.collect()  # gloo's threads end with the group
"""


@pytest.mark.golden
@pytest.mark.slow
def test_the_processes_of_one_machine_tokenise_once_and_have_the_same_responses_report_and_error(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    results = {}
    for world in (1, 2):
        environment = {**os.environ, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment |= {"TMPDIR": str(tmp_path), "ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": str(world)}
        environment |= {"PYTHONPATH": str(Path(__file__).parent)}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", ONCE],
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        for process in processes:
            process.stdin.write(json.dumps(MANY[:60]))
            process.stdin.close()
        results[world] = [json.loads(process.stdout.read()) for process in processes]
        assert [process.wait() for process in processes] == [0] * world
    (alone,) = results[1]
    assert results[2] == [alone, alone]
    assert alone[0][1]["pairs"] == 19
    assert alone[1].startswith("--max_length 1: ")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_or_fails_is_told_and_leaves_none_behind():
    with pytest.raises(BadInput, match=r"One of the 2 processes that tokenise was killed.*--dataset_num_proc 1"):
        list(_shared_out(MANY, lambda row: os._exit(9), 2))
    with pytest.raises(ZeroDivisionError):
        list(_shared_out(MANY, lambda row: 1 / 0, 2))
    first = next(_shared_out(MANY, lambda row: row.get("label", "pair"), 3))
    assert first is True
    assert multiprocessing.active_children() == []


def test_less_than_one_process_is_refused():
    with pytest.raises(BadInput, match=r"--dataset_num_proc 0: at least one process"):
        responses_of(PLAIN, plain_tokenizer(), num_proc=0)


def test_tokens_are_cut_once_at_the_end_and_cut_answers_are_counted():
    tokenizer = plain_tokenizer()
    raw = [
        {"prompt": "1234", "completion": "5678", "label": True},
        {"prompt": "1234", "completion": "56", "label": False},
    ]
    for max_length, kept, ended in ((9, "5678<eos>", True), (8, "5678", False), (5, "5", False)):
        ours, report = responses_of(raw, tokenizer, max_length)
        assert scored_texts(ours, tokenizer)[0] == [kept]
        assert (ours["end"][0] >= 0) is ended
        assert report.cut == ([] if ended else [0, 1] if max_length == 5 else [0])
    assert max(map(len, ours["input_ids"])) == 5
    assert report.lengths == {"p50": 8, "p95": 9, "max": 9}
    assert report.as_dict()["cut"] == 2


def test_losing_only_what_follows_the_end_token_is_no_cut():
    tokenizer = chatml_tokenizer()
    whole, _ = responses_of(CHAT[:1], tokenizer)
    ours, report = responses_of(CHAT[:1], tokenizer, len(whole["input_ids"][0]) - 1)
    assert scored_texts(ours, tokenizer) == [["a0<|im_end|>"]]
    assert ours["input_ids"][0][ours["end"][0]] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert report.cut == []


def test_a_pair_goes_whole_where_one_prompt_leaves_no_room():
    long = {"prompt": "p" * 10, "chosen": "a", "rejected": "b"}
    ours, report = responses_of([long, {**long, "prompt": "p" * 9}], plain_tokenizer(), 10)
    assert ours["row"][:] == [1, 1]
    assert report.dropped == {"prompts longer than max_length=10": [0]}
    assert report.pairs == 1


def test_a_pair_goes_whole_where_only_one_side_leaves_no_room():
    """The answer `bc` merges with the prompt's last letter and so starts one token earlier than `zz`."""
    tokenizer = byte_tokenizer(["<eos>"], merges=(("a", "b"),), eos_token="<eos>")
    raw = [{"prompt": "xa", "chosen": "bc", "rejected": "zz"}, {"prompt": "x", "chosen": "a", "rejected": "b"}]
    ours, report = responses_of(raw, tokenizer, 2)
    assert ours["row"][:] == [1, 1]
    assert report.dropped == {"prompts longer than max_length=2": [0]}


def test_a_prompt_that_changes_before_its_answer_is_pointed_out_and_cut_where_they_part():
    tokenizer = byte_tokenizer(["<eos>"], merges=(("a", "b"),), eos_token="<eos>")
    ours, report = responses_of([{"prompt": "xa", "completion": "bc", "label": True}], tokenizer)
    assert scored_texts(ours, tokenizer) == [["abc<eos>"]]
    assert "the tokens of a prompt alone are not those it has before its answer: 1 row (0)" in report.warnings[0]
    assert report.warnings[0].endswith("left out: 'a'")


def test_rows_the_template_refuses_are_dropped_with_its_reason():
    raw = [{"prompt": [user("q"), user("r")], "completion": [assistant("a")], "label": True}, CHAT[1]]
    ours, report = responses_of(raw, gemma_tokenizer())
    assert ours["row"][:] == [1]
    reason = "the chat template refuses them: Conversation roles must alternate user/assistant/user/assistant/..."
    assert report.dropped == {reason: [0]}
    assert (report.ups, report.downs) == (0, 1)
    with pytest.raises(
        BadInput, match=r"no row is left after tokenising. the chat template refuses them: .* 1 row \(0\)"
    ):
        responses_of(raw[:1], gemma_tokenizer())


def test_a_template_that_never_ends_a_turn_is_pointed_out():
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role + ': ' + message.content + '\\n' }}{% endfor %}"
    )
    ours, report = responses_of(CHAT[:2], tokenizer)
    assert ours["end"][:] == [-1, -1]
    assert "no end token after the answer, as the template writes it: 2 rows (0, 1)" in report.warnings


def test_plain_rows_under_a_chat_tokenizer_are_noted():
    _, report = responses_of(PLAIN, chatml_tokenizer())
    assert any("the chat template is not applied: 5 rows (0, 1, 2, ...). That" in note for note in report.notes)


def test_show_tokens_marks_the_scored_ones_and_shows_both_sides_of_a_pair():
    ours, _ = responses_of([{"prompt": "q ", "chosen": "a", "rejected": "b"}, *PLAIN], plain_tokenizer())
    eos = plain_tokenizer().eos_token_id
    assert show_tokens(ours, plain_tokenizer(), 1).splitlines() == [
        "row 0, up: 4 tokens, 2 scored (#), ends",
        f"     0      {ours['input_ids'][0][0]} . 'q'",
        f"     1     {ours['input_ids'][0][1]} . ' '",
        f"     2      {ours['input_ids'][0][2]} # 'a'",
        f"     3     {eos} # '<eos>'",
        "",
        "row 0, down: 4 tokens, 2 scored (#), ends",
        f"     0      {ours['input_ids'][0][0]} . 'q'",
        f"     1     {ours['input_ids'][0][1]} . ' '",
        f"     2      {ours['input_ids'][1][2]} # 'b'",
        f"     3     {eos} # '<eos>'",
    ]
    assert all(before <= after for before, after in pairwise(ours["pair_id"]))


def test_the_counts_are_those_of_the_rows_given_whatever_the_report_held_before():
    rows, _ = preference_rows([*PLAIN, *PAIRS], source="data")
    report = DataReport("part", pairs=99)
    tokenize_rows(rows[3:6], chatml_tokenizer(), report, max_length=None)
    assert (report.pairs, report.ups, report.downs) == (1, 1, 1)
