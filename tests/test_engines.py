"""The engines: they say what the library says to one prompt at a time, however a job is cut or interrupted."""

import copy
import csv
import importlib
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from bnf_align.endpoint import Endpoint
from bnf_align.engines import Request, Sampling, decoding
from bnf_align.engines.decoding import Draft, next_tokens
from bnf_align.engines.local import Limits, LocalEngine
from bnf_align.engines.request import stream_seed
from bnf_align.engines.tokens import Ending, end_tokens, prompt_ids
from bnf_align.engines.url import UrlEngine
from bnf_align.lab.model import build_tokenizer
from bnf_align.records import BadInput
from model_server import ModelServer, prompt_of
from tiny_models import chatml_tokenizer, gemma_tokenizer, llama3_tokenizer, plain_tokenizer
from tiny_nets import tiny_gemma2, tiny_llama, tiny_mistral
from transformers_server import served

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
generation = importlib.import_module("generation")

SAMPLED = Sampling(temperature=0.8, n=3, max_new_tokens=12, seed=5)
GREEDY = Sampling(max_new_tokens=24)
ENDS = list(range(8))
"""End tokens in the model's `generation_config`: a random model says one of eight bytes soon enough."""


def ending(model):
    model.generation_config.eos_token_id = ENDS
    return model


def tiny_gpt2():
    """Positions are learned and counted from the first token, so that one mistaken for another shows."""
    torch.manual_seed(0)
    config = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=300, initializer_range=0.3, tie_word_embeddings=False, **config)
    ).eval()


FAMILIES = {
    "llama": lambda: (ending(tiny_llama()), llama3_tokenizer()),
    # Windows shorter than the prompts.
    "mistral": lambda: (ending(tiny_mistral(sliding_window=16)), chatml_tokenizer()),
    "gemma2": lambda: (ending(tiny_gemma2(sliding_window=16, tie_word_embeddings=False)), gemma_tokenizer()),
    "gpt2": lambda: (ending(tiny_gpt2()), chatml_tokenizer()),
}


def some_requests(count: int = 14, longest: int = 60) -> list[Request]:
    """Prompts of many lengths, conversations and plain texts by turns."""
    random = np.random.default_rng(0)
    requests = []
    for number, length in enumerate(np.clip(random.lognormal(3, 1, count), 2, longest).astype(int)):
        text = "".join(map(chr, random.integers(ord("a"), ord("z") + 1, length)))
        requests.append(Request(f"r{number}", [{"role": "user", "content": text}] if number % 2 else text))
    return requests


def answers(engine, requests, sampling, done=()):
    return {one.id: one for batch in engine.generate(requests, sampling, done) for one in batch}


def engine_of(family: str = "llama", **options) -> LocalEngine:
    return LocalEngine(*FAMILIES[family](), name=family, **options)


def one_by_one(engine: LocalEngine, request: Request, limit: int) -> list[int]:
    """The tokens that `model.generate` adds to a prompt alone."""
    ids = prompt_ids(request, engine.tokenizer)
    ends = sorted(end_tokens(engine.model, engine.tokenizer))
    out = engine.model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=limit, eos_token_id=ends)
    return out[0, len(ids) :].tolist()


# Decoding


@pytest.mark.golden
@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_the_library_row_by_row(family, rows, monkeypatch):
    if rows > 1:
        monkeypatch.setattr(decoding, "PREFILL_TOKENS", 40)  # prompts are read a few columns at a time
    engine = engine_of(family, limits=Limits(rows))
    requests = some_requests()
    found = answers(engine, requests, GREEDY)
    assert set(found) == {request.id for request in requests}
    ends = end_tokens(engine.model, engine.tokenizer)
    reasons = Counter()
    for request in requests:
        tokens = one_by_one(engine, request, GREEDY.max_new_tokens)
        one, ended = found[request.id], tokens[-1] in ends
        assert one.tokens == [len(tokens)]
        assert one.finish_reasons == ["stop" if ended else "length"]
        assert one.prompt_tokens == len(prompt_ids(request, engine.tokenizer))
        if not isinstance(request.prompt, str):
            text = engine.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
            assert one.texts == [text]
        reasons[one.finish_reasons[0]] += 1
    assert min(reasons["stop"], reasons["length"]) > 2  # rows did end at different times


def test_a_prompt_is_read_once_for_all_its_samples_and_a_finished_row_costs_nothing_more():
    engine = engine_of()
    computed = []
    forward = engine.model.register_forward_pre_hook(
        lambda module, args, kwargs: computed.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    found = answers(engine, some_requests(6), SAMPLED)
    forward.remove()
    longest = max(one.prompt_tokens for one in found.values())
    assert computed[0] == (6, longest)
    assert sum(rows for rows, _ in computed[1:]) == sum(n - 1 for one in found.values() for n in one.tokens)
    assert len({n for one in found.values() for n in one.tokens}) > 2


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_tokens_are_drawn_from_the_distribution_at_that_temperature(temperature):
    logits = torch.tensor([2.0, -1.0, 0.5, float("-inf"), 1.0])
    drafts = [Draft([0], 1, stream_seed(3, f"r{number}", 0), []) for number in range(8_000)]
    tokens = next_tokens(logits.expand(len(drafts), -1), Sampling(temperature=temperature), drafts)
    shares = torch.bincount(tokens, minlength=5) / len(drafts)
    expected = (logits / temperature).softmax(-1)
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / len(drafts)).sqrt()).all()


def test_top_p_leaves_the_tail_out_and_keeps_the_rest_in_proportion():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    drafts = [Draft([0], 1, number, []) for number in range(8_000)]
    tokens = next_tokens(logits.expand(len(drafts), -1), Sampling(temperature=1.0, top_p=0.75), drafts)
    shares = torch.bincount(tokens, minlength=4) / len(drafts)
    assert shares[2:].tolist() == [0, 0]
    assert shares[0].item() == pytest.approx(0.5 / 0.8, abs=0.03)


def test_the_likeliest_token_is_taken_at_temperature_zero():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 1.0, 0.0]])
    assert next_tokens(logits, Sampling(), []).tolist() == [1, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.5},
        {"temperature": float("nan")},
        {"temperature": 1e-300},
        {"stop": ("\n", "")},
        {"n": 99_999_999_999},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_new_tokens": 0},
        {"n": 0},
    ],
)
def test_a_way_to_draw_that_is_none_is_refused(wrong):
    name = next(iter(wrong)).replace("_", "-")
    with pytest.raises(BadInput, match=name if name in ("temperature", "top-p", "stop") else "1 token or more"):
        Sampling(**wrong)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0)])
def test_logits_that_are_no_numbers_are_refused(sampling):
    engine = engine_of()
    engine.model.lm_head.weight.data[5] = float("nan")
    with pytest.raises(BadInput, match="float32 or bfloat16"):
        answers(engine, some_requests(2), sampling)


def test_settings_of_the_models_generation_config_do_not_leak_but_its_end_tokens_hold():
    plain, other = engine_of(), engine_of()
    config = other.model.generation_config
    config.do_sample, config.top_k, config.top_p, config.temperature = True, 1, 0.1, 0.2
    config.repetition_penalty, config.no_repeat_ngram_size, config.max_length, config.num_beams = 5.0, 1, 3, 4
    requests = some_requests(8)
    assert answers(other, requests, SAMPLED) == answers(plain, requests, SAMPLED)
    config.eos_token_id = None
    assert answers(other, requests, GREEDY) != answers(plain, requests, GREEDY)


# Seeds, batches and resuming


def test_a_sample_depends_on_the_seed_its_id_and_its_number_alone():
    engine = engine_of(limits=Limits(6))
    requests = some_requests(8)
    three = answers(engine, requests, SAMPLED)
    fewer = answers(engine, requests[2:5], Sampling(temperature=0.8, n=2, max_new_tokens=12, seed=5))
    assert {name: one.texts for name, one in fewer.items()} == {name: three[name].texts[:2] for name in fewer}
    again = answers(engine, [Request("other", request.prompt) for request in requests[:1]], SAMPLED)
    assert set(again["other"].texts).isdisjoint(three["r0"].texts)
    assert answers(engine, requests, Sampling(temperature=0.8, n=3, max_new_tokens=12, seed=6)) != three


def test_the_samples_of_a_prompt_differ_and_greedy_ones_are_one_text_n_times():
    engine = engine_of()
    requests = some_requests(4)
    assert all(len(set(one.texts)) == 3 for one in answers(engine, requests, SAMPLED).values())
    alone, thrice = (answers(engine, requests, Sampling(n=n, max_new_tokens=12)) for n in (1, 3))
    for name, one in thrice.items():
        assert (one.texts, one.finish_reasons) == (alone[name].texts * 3, alone[name].finish_reasons * 3)
        assert one.tokens == alone[name].tokens * 3


@pytest.mark.golden
@pytest.mark.parametrize("sampling", [SAMPLED, Sampling(max_new_tokens=12)], ids=["sampled", "greedy"])
def test_a_resumed_job_equals_an_uninterrupted_one(sampling):
    engine = engine_of(limits=Limits(5 * sampling.n))
    requests = some_requests(23)
    batches = list(engine.generate(requests, sampling))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    whole = {one.id: one for batch in batches for one in batch}
    # Killed when two batches were done and of a third two rows were written.
    done = {one.id for one in (*batches[0], *batches[3], *batches[1][:2])}
    rest = list(engine.generate(requests, sampling, done))
    assert rest == [batches[1], batches[2], batches[4]]
    assert {**whole, **{one.id: one for batch in rest for one in batch}} == whole


def test_batches_follow_from_the_requests_and_keep_to_both_budgets():
    engine = engine_of(limits=Limits(4, 200))
    batches = list(engine.generate(some_requests(), GREEDY))
    lengths = [[one.prompt_tokens for one in batch] for batch in batches]
    in_order = [length for batch in lengths for length in batch]
    assert in_order == sorted(in_order, reverse=True)
    assert max(map(len, lengths)) == 4
    assert all(len(batch) * (batch[0] + 24) <= 200 or len(batch) == 1 for batch in lengths)
    assert any(len(batch) < 4 for batch in lengths[:-1])  # the budget of tokens was felt


def test_a_batch_that_runs_out_of_memory_is_halved_until_it_fits(caplog):
    engine = engine_of(limits=Limits(8))
    requests = some_requests(8)
    whole = answers(engine, requests, Sampling(temperature=0.8, max_new_tokens=12))

    def too_little_memory(module, args, kwargs):
        if len(kwargs["input_ids"]) > 2:
            raise torch.OutOfMemoryError

    hook = engine.model.register_forward_pre_hook(too_little_memory, with_kwargs=True)
    assert answers(engine, requests, Sampling(temperature=0.8, max_new_tokens=12)) == whole
    assert "two halves" in caplog.text
    hook.remove()


# Prompts


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_prompt_has_exactly_one_bos(family):
    _, tokenizer = FAMILIES[family]()
    bos = tokenizer.bos_token_id
    turns = [{"role": "user", "content": "Hi"}]
    written = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    for prompt in (turns, "Hi", written):
        ids = prompt_ids(Request("r", prompt), tokenizer)
        assert (ids[0], ids.count(bos)) == (bos, 1)
    assert prompt_ids(Request("r", turns), tokenizer) == prompt_ids(Request("r", written), tokenizer)
    assert written.endswith(("<start_of_turn>model\n", "assistant<|end_header_id|>\n\n"))


@pytest.mark.parametrize(
    ("tokenizer", "prompt", "message"),
    [
        (
            gemma_tokenizer,
            [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
            "System role",
        ),
        (plain_tokenizer, [{"role": "user", "content": "Hi"}], "no chat template"),
        (plain_tokenizer, "", "empty"),
    ],
)
def test_a_prompt_that_cannot_be_written_is_named(tokenizer, prompt, message):
    engine = LocalEngine(tiny_llama(), tokenizer(), name="m")
    with pytest.raises(BadInput, match=f"odd one.*{message}"):
        answers(engine, [Request("good", "Hi"), Request("odd one", prompt)], GREEDY)


def test_a_prompt_beyond_the_context_is_named_with_its_length_before_anything_is_generated():
    engine = LocalEngine(tiny_llama(max_position_embeddings=32), plain_tokenizer(), name="m")
    long = [Request("fits", "a" * 31), Request("long", "a" * 32), Request("longer", "a" * 50)]
    with pytest.raises(BadInput, match=r"2 of 3 prompts.* 32 tokens that m reads.*'long', has 32, the longest 50"):
        next(engine.generate(long, GREEDY))
    assert engine.tokens == 0


def test_an_answer_ends_where_the_context_does():
    engine = LocalEngine(tiny_llama(max_position_embeddings=32), plain_tokenizer(), name="m")
    engine.model.generation_config.eos_token_id = None
    found = answers(engine, [Request("a", "a" * 31), Request("b", "b" * 20)], GREEDY)
    assert {name: (one.tokens, one.finish_reasons) for name, one in found.items()} == {
        "a": ([1], ["length"]),
        "b": ([12], ["length"]),
    }


def test_ids_that_stand_on_two_prompts_are_refused():
    twice = [Request("a", "x"), Request("b", "y"), Request("a", "z")]
    for engine in (engine_of(), UrlEngine(Endpoint("http://localhost:9", "m"))):
        with pytest.raises(BadInput, match="'a'"):
            answers(engine, twice, GREEDY)


# Ends and texts


def test_an_answer_ends_with_the_models_the_tokenizers_or_the_templates_end_token():
    model, tokenizer = tiny_llama(), chatml_tokenizer()
    model.generation_config.eos_token_id = [3, 5]
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_tokens(model, tokenizer) == {3, 5, tokenizer.eos_token_id, end_of_turn}
    model.generation_config.eos_token_id = 3
    assert end_tokens(model, plain_tokenizer()) == {3, plain_tokenizer().eos_token_id}
    for build, name in ((gemma_tokenizer, "<end_of_turn>"), (llama3_tokenizer, "<|eot_id|>")):
        assert build().convert_tokens_to_ids(name) in end_tokens(model, build())


def written(text: str, stop=(), ends=(), limit=100, prompt="", tokenizer=None) -> tuple[Draft, str]:
    """`text` said token by token until it has ended, and what then stands as its text."""
    tokenizer = tokenizer or chatml_tokenizer()
    judge = Ending(tokenizer, {*ends, tokenizer.convert_tokens_to_ids("<|im_end|>")}, stop)
    draft = Draft([1], limit, 0, tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else [])
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        draft.tokens.append(token)
        if reason := judge.finish_reason(draft):
            draft.finish_reason = reason
            break
    return draft, judge.text(draft)


def test_an_end_token_is_counted_and_not_part_of_the_text():
    draft, text = written("four<|im_end|>more")
    assert (draft.finish_reason, len(draft.tokens), text) == ("stop", 5, "four")


def test_an_end_token_at_the_limit_is_a_stop_and_a_text_cut_there_is_not():
    assert written("four<|im_end|>", limit=5)[0].finish_reason == "stop"
    assert written("four<|im_end|>", limit=4)[0].finish_reason == "length"


def test_a_stop_text_ends_a_generation_at_once_and_is_cut_away():
    draft, text = written("one two END three", stop=("STOP", "END"))
    assert (draft.finish_reason, text, len(draft.tokens)) == ("stop", "one two ", len("one two END"))


def test_a_stop_text_of_several_bytes_a_character_is_found():
    draft, text = written("price 5 € more — yes", stop=("€ more —",))
    assert (text, len(draft.tokens)) == ("price 5 ", len("price 5 € more —".encode()))


def test_a_stop_text_in_the_prompt_does_not_count():
    draft, text = written("ND and more", stop=("END",), prompt="so E", limit=11)
    assert (draft.finish_reason, text) == ("length", "ND and more")


def test_a_special_token_can_be_a_stop_text():
    draft, text = written("one<|im_start|>two", stop=("<|im_start|>",))
    assert (draft.finish_reason, text, len(draft.tokens)) == ("stop", "one", 4)


def test_of_two_stop_texts_the_one_that_begins_first_cuts():
    assert written("one two END", stop=("END", "two END"))[1] == "one "


def test_the_continuation_of_a_plain_text_keeps_every_space_the_one_it_begins_with_too():
    # Word level: decoded alone, a continuation begins with its first word; cleaned up, it has no space before a mark.
    tokenizer = build_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    ids = tokenizer("gets 8 ? gets 8")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    draft = Draft(ids[:1], 9, 0, ids[:1])
    draft.tokens = ids[1:]
    assert Ending(tokenizer, (), ()).text(draft) == " 8 ? gets 8"


def test_stop_texts_work_through_the_engine():
    engine = engine_of()
    requests = [request for request in some_requests() if not isinstance(request.prompt, str)]
    whole = answers(engine, requests, GREEDY)
    stop = whole["r1"].texts[0][4:6]
    found = answers(engine, requests, Sampling(max_new_tokens=24, stop=(stop,)))
    for name, one in whole.items():
        text = one.texts[0]
        assert found[name].texts == [text.split(stop)[0]]
        assert found[name].finish_reasons == (["stop"] if stop in text else one.finish_reasons)
    assert found["r1"].tokens[0] < whole["r1"].tokens[0]


# The model


def test_the_model_and_the_random_state_are_left_as_they_were():
    engine = engine_of()
    model = engine.model.train()
    model.model.layers[0].eval()
    model.config.use_cache = False
    modes = [module.training for module in model.modules()]
    config, torch_state, numpy_state = copy.deepcopy(model.config), torch.get_rng_state(), np.random.get_state()[1]
    seen = []
    hook = model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    for _ in engine.generate(some_requests(4), SAMPLED):
        assert [module.training for module in model.modules()] == modes  # between two batches too
    hook.remove()
    assert set(seen) == {False}
    assert model.config.to_dict() == config.to_dict()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model's folder and that of an adapter on it."""
    folder = tmp_path_factory.mktemp("models")
    model, tokenizer = tiny_llama(), chatml_tokenizer()
    specials = tokenizer.all_special_ids
    model.lm_head.weight.data[specials] *= 1.3  # it says them now and then
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = specials, specials[0]
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(type(model).from_pretrained(folder / "base"), config)
    adapted.save_pretrained(folder / "adapter")
    return str(folder / "base"), str(folder / "adapter"), adapted


def test_an_adapter_is_loaded_alone_or_on_its_base_or_handed_in(saved):
    base, folder, adapted = saved
    requests = some_requests(6)
    engines = {
        "alone": LocalEngine.load(folder, device="cpu"),
        "on its base": LocalEngine.load(base, folder, device="cpu", name="mine"),
        "handed in": LocalEngine(adapted, chatml_tokenizer(), name="handed in"),
    }
    found = [answers(engine, requests, GREEDY) for engine in engines.values()]
    assert found[0] == found[1] == found[2]
    assert found[0] != answers(LocalEngine.load(base, device="cpu"), requests, GREEDY)
    assert [engine.name for engine in engines.values()] == [folder, "mine", "handed in"]
    assert isinstance(engines["on its base"].model, PeftModel)


def test_weights_are_loaded_in_the_type_asked_for(saved):
    base = saved[0]
    assert LocalEngine.load(base, device="cpu").model.dtype == torch.float32
    engine = LocalEngine.load(base, device="cpu", dtype="bfloat16")
    assert engine.model.dtype == torch.bfloat16
    assert len(answers(engine, some_requests(6), SAMPLED)) == 6


def test_prompt_learning_is_refused():
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, token_dim=32)
    with pytest.raises(BadInput, match="PROMPT_TUNING"):
        LocalEngine(get_peft_model(tiny_llama(), config), chatml_tokenizer(), name="m")


def test_generated_tokens_and_their_seconds_add_up():
    engine, began = engine_of(), time.monotonic()
    found = answers(engine, some_requests(6), SAMPLED)
    assert engine.tokens == sum(sum(one.tokens) for one in found.values())
    assert 0 < engine.seconds <= time.monotonic() - began


def test_the_names_of_the_room_do_not_import_torch():
    code = "import sys, bnf_align.engines, bnf_align.engines.url; assert not {'torch', 'openai'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# URLs


def quick(server, **options) -> Endpoint:
    return Endpoint(server.url, "a-model", backoff=0.01, **options)


def test_conversations_and_texts_are_asked_with_the_sampling_and_answered_in_any_order():
    requests = some_requests(12)
    with ModelServer(delay=lambda body: 0.002 * (len(prompt_of(body)) % 5)) as server:
        engine = UrlEngine(quick(server), extra={"top_k": 0})
        batches = list(engine.generate(requests, Sampling(0.7, 0.9, 33, seed=4, stop=("END",)), done={"r2"}))
    found = {one.id: one for batch in batches for one in batch}
    assert set(found) == {request.id for request in requests} - {"r2"}
    asked = {prompt_of(body): body for body in server.bodies}
    for request in requests[:2] + requests[3:]:
        plain = isinstance(request.prompt, str)
        text = request.prompt if plain else request.prompt[-1]["content"]
        said = f"answer to {text}"
        one = found[request.id]
        assert (one.texts, one.finish_reasons, one.tokens) == ([said], ["stop"], [len(said)])
        assert one.prompt_tokens == len(json.dumps(request.prompt))
        body = {"model": "a-model", "max_tokens": 33, "temperature": 0.7, "top_p": 0.9, "stop": ["END"], "top_k": 0}
        body |= {"seed": stream_seed(4, request.id, 0), "prompt" if plain else "messages": request.prompt}
        assert asked[text] == body
    assert engine.name == "a-model"
    assert engine.tokens == sum(one.tokens[0] for one in found.values())
    assert engine.seconds > 0


def test_each_sample_has_its_own_call_and_seed_whatever_the_server_makes_of_n():
    first = stream_seed(5, "r1", 0)
    late = {"delay": lambda body: 0.2 * (body["seed"] == first)}  # the first sample arrives last
    with ModelServer(answer=lambda body: f"said with {body['seed']}", **late) as server:
        found = answers(UrlEngine(quick(server)), some_requests(3), SAMPLED)
        assert found["r1"].texts == [f"said with {stream_seed(5, 'r1', sample)}" for sample in range(3)]
        assert sum(server.served.values()) == 9
        greedy = answers(UrlEngine(quick(server)), some_requests(3), Sampling(n=3))
        assert all(len(set(one.texts)) == 1 and len(one.texts) == 3 for one in greedy.values())
        assert sum(server.served.values()) == 9 + 3


def test_a_server_without_counts_leaves_them_open():
    with ModelServer(usage=False) as server:
        found = answers(UrlEngine(quick(server)), some_requests(2), SAMPLED)
    assert [(one.tokens, one.prompt_tokens) for one in found.values()] == [([None] * 3, None)] * 2


def test_what_fails_after_all_retries_is_left_out_and_said_and_asked_again(caplog):
    requests = some_requests(20)
    with ModelServer(failures=0.4, seed=1) as server:
        engine = UrlEngine(quick(server, retries=1))
        first = answers(engine, requests, SAMPLED)
        failed = dict(engine.failed)
        assert set(first) | set(failed) == {request.id for request in requests}
        assert set(first) & set(failed) == set()
        assert first
        assert failed
        assert f"{len(failed)} prompts got no answer" in caplog.text
        assert all("2 attempts" in reason for reason in failed.values())
        engine.endpoint.retries = 20
        rest = answers(engine, requests, SAMPLED, done=first)
    assert set(rest) == set(failed)
    assert engine.failed == {}


def test_several_urls_share_the_load():
    with ModelServer(delay=0.01) as one, ModelServer(delay=0.01) as other:
        endpoint = Endpoint([one.url, other.url], "a-model", concurrency=4)
        assert len(answers(UrlEngine(endpoint), some_requests(16), GREEDY)) == 16
        assert min(sum(server.served.values()) for server in (one, other)) >= 4


def test_a_served_model_says_what_it_says_in_process(saved):
    requests = some_requests(8)
    sampling = Sampling(max_new_tokens=10)
    with served(saved[0]) as url:
        engine = UrlEngine(Endpoint(url, saved[0], concurrency=2), name="served")
        found = answers(engine, requests, sampling)
    expected = answers(LocalEngine.load(saved[0], device="cpu"), requests, sampling)
    assert engine.failed == {}
    for request in requests:
        one, other = found[request.id], expected[request.id]
        assert (one.prompt_tokens, one.tokens) == (other.prompt_tokens, other.tokens)
        assert (one.texts, one.finish_reasons) == (other.texts, other.finish_reasons)
    assert {reason for one in found.values() for reason in one.finish_reasons} == {"stop", "length"}


# The benchmark


def test_the_sides_of_the_benchmark_say_the_same_and_their_rates_are_written(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32, "initializer_range": 0.3}
    model = generation.wandering_llama(600, 60, **sizes)
    rows = generation.prompts(np.random.default_rng(0), 6)
    sides = generation.sides(model, rows, (2, 6), 12)
    counts = [side() for side in sides.values()]
    assert counts == [counts[0]] * 4
    assert len(set(counts[0])) > 2
    assert max(counts[0]) == 12
    generation.write_rates(*generation.measured(sides, 2), rows=6, path=tmp_path / "claims.csv")
    with (tmp_path / "claims.csv").open(newline="") as file:
        written = {row["id"]: row for row in csv.DictReader(file)}
    assert [row["threshold"] for row in written.values()] == ["low >= 1.5", "low >= 1.0"]
    assert list(written) == ["generate-row-by-row", "generate-pipeline"]
    assert f"({sum(counts[0])})" in written["generate-pipeline"]["claim"]


# An answer on its way


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.8, max_new_tokens=40, seed=5)], ids=["0", "0.8"])
def test_an_answer_on_its_way_grows_token_by_token_to_what_the_engine_says_at_once(sampling):
    tokenizer = chatml_tokenizer()
    engine = LocalEngine(tiny_llama(len(tokenizer)), tokenizer, "tiny")
    for number in range(4):
        request = Request(f"{number}", [{"role": "user", "content": f"hello {number}"}])
        ((whole,),) = engine.generate([request], sampling)
        pieces = list(engine.stream(request, sampling))
        assert pieces[-1] == whole
        assert [piece.tokens[0] for piece in pieces] == list(range(1, whole.tokens[0] + 1))
        assert {piece.finish_reasons[0] for piece in pieces[:-1]} == {""}
        assert all(whole.texts[0].startswith(piece.texts[0]) for piece in pieces)


def test_between_its_tokens_gradients_are_on_and_a_closed_answer_leaves_the_model_as_it_was():
    tokenizer = chatml_tokenizer()
    engine = LocalEngine(tiny_llama(len(tokenizer)).train(), tokenizer, "tiny")
    answer = engine.stream(Request("x", [{"role": "user", "content": "hello"}]), GREEDY)
    next(answer)
    assert torch.is_grad_enabled()
    assert not engine.model.training
    answer.close()
    assert engine.model.training


def test_a_served_answer_on_its_way_ends_as_the_whole_or_says_why_there_is_none():
    with ModelServer(first=["torn"]) as server:
        engine = UrlEngine(Endpoint(server.url, "a-model", retries=0))
        request = Request("x", [{"role": "user", "content": "hello"}])
        assert all(piece.finish_reasons == [""] for piece in engine.stream(request, SAMPLED))
        assert engine.failed == {"x": "a cut connection, after 1 attempts"}
        *_, whole = engine.stream(request, SAMPLED)
        assert (whole.texts, whole.finish_reasons, engine.failed) == (["answer to hello"], ["stop"], {})
        assert server.bodies[0]["seed"] == stream_seed(5, "x", 0)


def test_another_template_or_other_ends_are_another_model():
    def engine() -> LocalEngine:
        return LocalEngine(tiny_llama(len(chatml_tokenizer())), chatml_tokenizer(), "m")

    first, other, ends = engine(), engine(), engine()
    other.tokenizer.chat_template += "{# #}"
    ends._lm.generation_config.eos_token_id = 3
    assert first.weights == engine().weights
    assert len({first.weights, other.weights, ends.weights}) == 3
