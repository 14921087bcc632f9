"""The trainer: the gradient is the paper's, and neither memory, nor keys, nor a kill changes a run."""

import json
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, MixtralConfig, MixtralForCausalLM

from bnf_align import LOSSES, BadInput, BNFConfig, BNFTrainer, PreferenceConfig
from bnf_align.head import HeadCall, ask
from reference.eq4 import eq4_loss
from rounding import ROUNDING
from runs import first_gradient, make_trainer, pairs, perturb, relative_difference, singles
from tiny_models import chatml_tokenizer, plain_tokenizer
from tiny_nets import SIZES, tiny_gemma2, tiny_llama, tiny_mistral

EVERY_LOSS = sorted(LOSSES)
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def final_weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def bitwise_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------ the gradient


def literal_gradient(rows, scale=0.05):
    """The gradient of Eq. 4 over the whole vocabulary, row by row, from the rows' text alone."""
    from tiny_nets import perturbed

    tokenizer = plain_tokenizer()
    reference, policy = tiny_llama(len(tokenizer)), perturbed(tiny_llama(len(tokenizer)), scale)
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = torch.tensor([tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]])
        with torch.no_grad():
            ref_logits = reference(input_ids=ids).logits[:, :-1]
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, len(prompt) :] = True
        logits = policy(input_ids=ids).logits[:, :-1]
        label = torch.tensor([row["label"]])
        (eq4_loss(logits, ref_logits, ids[:, 1:], mask[:, 1:], label).sum() / len(rows)).backward()
    return {name: p.grad for name, p in policy.named_parameters()}


@pytest.mark.golden
def test_the_gradient_of_a_bnf_step_is_that_of_the_literal_eq_4_on_the_rows_text(tmp_path):
    rows = singles(6)
    actual = first_gradient(perturb(make_trainer(tmp_path, rows)))
    assert relative_difference(actual, literal_gradient(rows)) < ROUNDING


@pytest.mark.golden
def test_a_label_turned_over_or_a_row_left_out_is_another_gradient(tmp_path):
    rows = singles(6)
    expected = literal_gradient(rows)
    turned = [{**row, "label": not row["label"]} if i == 2 else row for i, row in enumerate(rows)]
    assert relative_difference(first_gradient(perturb(make_trainer(tmp_path, turned))), expected) > 0.05
    assert relative_difference(first_gradient(perturb(make_trainer(tmp_path, rows[1:]))), expected) > 0.05


@pytest.mark.golden
@pytest.mark.parametrize("loss_type", EVERY_LOSS)
def test_the_gradient_does_not_depend_on_how_memory_cuts_the_step(tmp_path, loss_type):
    rows = pairs(8) if LOSSES[loss_type].pairwise else pairs(4) + singles(8)
    whole = {"head": "logits", "max_tokens_per_micro_batch": 10**6}
    expected = first_gradient(perturb(make_trainer(tmp_path, rows, loss_type=loss_type, **whole)))
    counts = []
    for budget in (10**6, 160, 2):
        trainer = perturb(make_trainer(tmp_path, rows, loss_type=loss_type, max_tokens_per_micro_batch=budget))
        counts.append(len(trainer.train_dataset.__getitems__(range(len(trainer.train_dataset))).micro_batches))
        assert relative_difference(first_gradient(trainer), expected) < ROUNDING
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.golden
@pytest.mark.parametrize("loss_type", EVERY_LOSS)
@pytest.mark.parametrize("model", [tiny_llama, tiny_mistral, tiny_gemma2])
def test_the_fused_head_gives_the_gradient_of_the_models_own_logits(tmp_path, loss_type, model):
    rows = pairs(6) if LOSSES[loss_type].pairwise else pairs(2) + singles(4)
    fused, logits = (
        first_gradient(perturb(make_trainer(tmp_path, rows, model=model(258), loss_type=loss_type, head=head)))
        for head in ("fused", "logits")
    )
    assert relative_difference(fused, logits) < ROUNDING


@pytest.mark.golden
@pytest.mark.parametrize(("per_device", "accumulation"), [(16, 1), (4, 4), (1, 16)])
def test_trl_keys_give_the_same_gradient_as_their_product(tmp_path, per_device, accumulation):
    rows = singles(16)
    expected = first_gradient(perturb(make_trainer(tmp_path, rows, batch_size=16)))
    trainer = make_trainer(
        tmp_path,
        rows,
        batch_size=None,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
    )
    assert relative_difference(first_gradient(perturb(trainer)), expected) < ROUNDING


@pytest.mark.golden
def test_the_mean_of_micro_batch_means_would_be_another_gradient(tmp_path):
    """A control: what a trainer does that averages over micro-batches of unequal size must not pass for ours."""
    rows = singles(16)
    trainer = perturb(make_trainer(tmp_path, rows, max_tokens_per_micro_batch=160))
    expected = first_gradient(perturb(make_trainer(tmp_path, rows)))

    step = trainer.train_dataset.__getitems__(range(len(rows)))
    assert len({len(batch["label"]) for batch in step.micro_batches}) > 1
    trainer.model.zero_grad()
    for batch in step.micro_batches:
        (trainer.compute_loss(trainer.model, batch) / len(batch["label"]) / len(step.micro_batches)).backward()
    naive = {name: p.grad for name, p in trainer.model.named_parameters()}
    assert relative_difference(naive, expected) > 0.01


@pytest.mark.golden
@pytest.mark.parametrize("loss_type", EVERY_LOSS)
@pytest.mark.parametrize("columns", [1, 60])
def test_padding_to_any_length_gives_the_same_gradient(tmp_path, loss_type, columns):
    rows = pairs(6) if LOSSES[loss_type].pairwise else pairs(2) + singles(4)
    trainer = perturb(make_trainer(tmp_path, rows, loss_type=loss_type, max_tokens_per_micro_batch=10**6))
    point = torch.tensor(0.1) if LOSSES[loss_type].mismatched or LOSSES[loss_type].running_reward else None
    gradients = []
    for extra in (0, columns):
        trainer.model.zero_grad()
        for batch in trainer.train_dataset.__getitems__(range(len(trainer.train_dataset))).micro_batches:
            wide = {k: v if v.dim() == 1 else torch.nn.functional.pad(v, (0, extra)) for k, v in batch.items()}
            trainer.compute_loss(trainer.model, wide, point).backward()
        gradients.append({name: p.grad.clone() for name, p in trainer.model.named_parameters()})
    assert relative_difference(gradients[1], gradients[0]) < ROUNDING


@pytest.mark.golden
def test_pairs_and_the_same_responses_as_singles_have_one_gradient(tmp_path):
    rows = pairs(8)
    unpaired = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]
    expected = first_gradient(perturb(make_trainer(tmp_path, rows)))
    assert relative_difference(first_gradient(perturb(make_trainer(tmp_path, unpaired))), expected) < ROUNDING


@pytest.mark.golden
def test_kto_compares_with_the_mean_over_the_whole_step(tmp_path):
    """z0 must not depend on the cut; one that is a mean per micro-batch gives another loss."""
    losses = []
    for budget in (10**6, 60):
        trainer = perturb(
            make_trainer(tmp_path, singles(12), loss_type="kto", max_tokens_per_micro_batch=budget), scale=0.3
        )
        trainer.train()
        losses.append((trainer.state.log_history[0]["loss"], trainer.state.log_history[0]["kl"]))
    assert losses[0] == pytest.approx(losses[1], rel=ROUNDING)
    assert losses[0][1] > 0


# ---------------------------------------------------------------------------------------------- step 0 and logs


def test_mean_weight_is_1_before_anything_has_moved(tmp_path):
    trainer = make_trainer(tmp_path, pairs(8) + singles(8), max_tokens_per_micro_batch=100)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["bnf/weight"] == pytest.approx(1, abs=ROUNDING)
    assert first["bnf/weight/chosen"] == pytest.approx(1, abs=ROUNDING)
    assert first["bnf/weight/rejected"] == pytest.approx(1, abs=ROUNDING)
    assert first["bnf/shift/chosen"] == pytest.approx(0, abs=ROUNDING)
    assert first["bnf/saturated"] == 0


def test_logged_metrics_are_the_means_of_the_rows(tmp_path):
    rows = [
        {"prompt": "a", "completion": "bc", "label": True},
        {"prompt": "a", "completion": "bcde", "label": True},
        {"prompt": "a", "completion": "b", "label": False},
    ]
    trainer = perturb(make_trainer(tmp_path, rows))
    tokenizer, expected = plain_tokenizer(), {"chosen": [], "rejected": []}
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]])
            logps = trainer.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            expected["chosen" if row["label"] else "rejected"].append(logps[range(ids.shape[1] - 1), ids[0, 1:]])
    trainer.train()
    log = trainer.state.log_history[0]
    for side, logps in expected.items():
        assert log[f"logps/{side}"] == pytest.approx(sum(float(x.sum()) for x in logps) / len(logps), rel=ROUNDING)
        assert log[f"bnf/length/{side}"] == sum(len(x) for x in logps) / len(logps)
        assert log[f"bnf/end_probability/{side}"] == pytest.approx(
            sum(float(x[-1].exp()) for x in logps) / len(logps), rel=ROUNDING
        )
    assert log["rewards/margins"] == pytest.approx(log["rewards/chosen"] - log["rewards/rejected"])


def test_accuracy_is_the_share_of_pairs_whose_chosen_answer_gained_more(tmp_path):
    trainer = perturb(make_trainer(tmp_path, pairs(8), loss_type="dpo"), scale=0.2)
    tokenizer, reference, gained = plain_tokenizer(), tiny_llama(len(plain_tokenizer())), []
    with torch.no_grad():
        for row in pairs(8):
            gains = []
            for side in ("chosen", "rejected"):
                prompt = len(tokenizer(row["prompt"])["input_ids"])
                ids = torch.tensor([tokenizer(row["prompt"] + row[side] + tokenizer.eos_token)["input_ids"]])
                logps = [
                    model(input_ids=ids).logits[0, :-1].log_softmax(-1)[range(ids.shape[1] - 1), ids[0, 1:]]
                    for model in (trainer.model, reference)
                ]
                gains.append(float((logps[0] - logps[1])[prompt - 1 :].sum()))
            gained.append(gains[0] > gains[1])
    trainer.train()
    assert sum(gained) != 4  # else turned over it would be the same
    assert trainer.state.log_history[0]["rewards/accuracies"] == sum(gained) / 8


def mean_reward(log: dict[str, float]) -> float:
    """Of a step of `singles(12)`: 8 ups and 4 downs."""
    return (8 * log["rewards/chosen"] + 4 * log["rewards/rejected"]) / 12


@pytest.mark.golden
@pytest.mark.parametrize("budget", [10**6, 60])
def test_bcos_delta_is_the_mean_reward_of_all_steps_before(tmp_path, budget):
    options = {"loss_type": "bco", "loss_kwargs": {"beta": 2.0}, "max_steps": 3, "max_tokens_per_micro_batch": budget}
    trainer = perturb(make_trainer(tmp_path, singles(12), eval_rows=singles(12), **options), scale=0.3)
    trainer.train()
    logs = trainer.state.log_history[:3]
    rewards = [mean_reward(log) for log in logs]
    deltas = [0.0, rewards[0], sum(rewards[:2]) / 2]
    assert [log["delta"] for log in logs] == pytest.approx(deltas, rel=ROUNDING)
    assert abs(rewards[0]) > 0.1
    # Evaluation compares with the mean over the three, and its loss is that of BCO's own formula.
    evaluated, delta = trainer.evaluate(), sum(rewards) / 3
    assert evaluated["eval_delta"] == pytest.approx(delta, rel=ROUNDING)
    losses = []
    for batch in trainer.eval_dataset.__getitems__(range(12)).micro_batches:
        call = HeadCall(batch)
        with torch.no_grad():
            ask(trainer.model, batch, call)
        margins = 2.0 * call.completions.logratio - delta
        losses += torch.log1p(torch.exp(torch.where(batch["label"], -margins, margins))).tolist()
    assert evaluated["eval_loss"] == pytest.approx(sum(losses) / 12, rel=ROUNDING)


def test_z0_is_never_below_zero(tmp_path):
    """Where unrelated answers became less likely, KTO's reference point is 0 and not their negative mean."""
    trainer = make_trainer(tmp_path, singles(8), loss_type="kto", check_step_0=False)
    steps = trainer.train_dataset
    for part in (steps.responses, steps.kl_rows):
        part.ref_logps = part.ref_logps + 0.5  # every log-ratio is -0.5 a token
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["kl"] == 0
    scored = [int(steps.responses.mask(row).sum()) for row in range(len(steps.responses))]
    sides = [1 if label else -1 for label in steps.responses.labels]
    losses = [1 - 1 / (1 + math.exp(-side * 0.1 * -0.5 * n)) for side, n in zip(sides, scored, strict=True)]
    assert log["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_the_verdict_speaks_from_the_mean_shift_of_chosen_and_of_rejected_tokens(tmp_path):
    rows = singles(9)
    trainer = make_trainer(tmp_path, rows, check_step_0=False)
    responses = trainer.train_dataset.responses
    shift = {True: 0.125, False: -0.375}  # policy minus reference, per token
    moved = [responses.reference(i) - shift[bool(responses.labels[i])] for i in range(len(responses))]
    responses.ref_logps = np.concatenate(moved)
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["bnf/shift/chosen"] == pytest.approx(0.125, abs=1e-5)
    assert log["bnf/shift/rejected"] == pytest.approx(-0.375, abs=1e-5)
    assert "chosen +0.1250, rejected -0.3750" in trainer.record.health().text


def test_the_end_probability_is_that_of_the_end_of_turn_and_not_of_what_follows_it(tmp_path, monkeypatch):
    import runs

    tokenizer = chatml_tokenizer()
    monkeypatch.setattr(runs, "plain_tokenizer", lambda: tokenizer)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    rows = [{"prompt": messages[:1], "completion": messages[1:], "label": True}]
    trainer = make_trainer(tmp_path, rows, model=tiny_llama(len(tokenizer)))
    ids = torch.tensor([tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]])
    end = ids[0].tolist().index(tokenizer.convert_tokens_to_ids("<|im_end|>"), ids.shape[1] - 3)
    assert end < ids.shape[1] - 1  # a newline follows
    with torch.no_grad():
        expected = trainer.model(input_ids=ids).logits[0, end - 1].softmax(-1)[ids[0, end]]
    trainer.train()
    assert trainer.state.log_history[0]["bnf/end_probability/chosen"] == pytest.approx(float(expected), rel=ROUNDING)


@pytest.mark.parametrize("loss_type", EVERY_LOSS)
def test_every_loss_trains_evaluates_and_logs_finite_numbers(tmp_path, loss_type):
    trainer = make_trainer(tmp_path, pairs(8), loss_type=loss_type, eval_rows=pairs(5), batch_size=4, max_steps=3)
    trainer.train()
    metrics = trainer.evaluate()
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(math.isfinite(v) for line in trainer.state.log_history for v in line.values())
    trained = "rejected" if LOSSES[loss_type].only is False else "chosen"
    assert {"eval_loss", f"eval_logps/{trained}"} <= metrics.keys()
    assert ("eval_bnf/weight" in metrics) == LOSSES[loss_type].reference
    assert ("eval_rewards/accuracies" in metrics) == (LOSSES[loss_type].pairwise and LOSSES[loss_type].reference)


@pytest.mark.parametrize("loss_type", EVERY_LOSS)
def test_a_loss_that_cannot_use_the_rows_says_what_it_needs(tmp_path, loss_type):
    spec, rows = LOSSES[loss_type], [row for row in singles(12) if row["label"] is not LOSSES[loss_type].only]
    if spec.pairwise:
        needs = "and no pair, but this loss compares the two responses of a pair"
    elif spec.only is not None:
        needs = f"and no {'up' if spec.only else 'down'}, but this loss trains on"
    else:
        make_trainer(tmp_path, rows, loss_type=loss_type).train()  # one label or both
        return
    with pytest.raises(BadInput, match=needs):
        make_trainer(tmp_path, rows, loss_type=loss_type)


def test_training_lowers_the_loss_and_parts_chosen_from_rejected(tmp_path):
    trainer = make_trainer(tmp_path, pairs(8), max_steps=20, learning_rate=0.05, eval_rows=pairs(8))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_logps/chosen"] > before["eval_logps/chosen"]
    assert after["eval_logps/rejected"] < before["eval_logps/rejected"]


# -------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("loss_type", EVERY_LOSS)
def test_evaluation_does_not_depend_on_the_cut(tmp_path, loss_type):
    results = []
    for budget in (10**6, 120, 2):
        options = {"max_tokens_per_micro_batch": budget}
        trainer = make_trainer(tmp_path, pairs(4), eval_rows=pairs(13), loss_type=loss_type, **options)
        results.append(perturb(trainer).evaluate())
    speed = ("runtime", "per_second", "preparation_time")
    for name in results[0]:
        if not name.endswith(speed):
            assert results[1][name] == pytest.approx(results[0][name], rel=ROUNDING, abs=ROUNDING), name
            assert results[2][name] == pytest.approx(results[0][name], rel=ROUNDING, abs=ROUNDING), name


def test_eq4_value_is_logged_on_request_and_equals_the_literal_one(tmp_path):
    rows = singles(5)
    trainer = perturb(make_trainer(tmp_path, rows, eval_rows=rows, log_eq4_value=True))
    tokenizer, reference, total = plain_tokenizer(), tiny_llama(len(plain_tokenizer())), 0.0
    with torch.no_grad():
        for row in rows:
            prompt = tokenizer(row["prompt"])["input_ids"]
            ids = torch.tensor([tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]])
            mask = torch.zeros_like(ids, dtype=torch.bool)
            mask[:, len(prompt) :] = True
            logits = [model(input_ids=ids).logits[:, :-1] for model in (trainer.model, reference)]
            total += float(eq4_loss(*logits, ids[:, 1:], mask[:, 1:], torch.tensor([row["label"]])))
    assert trainer.evaluate()["eval_bnf/eq4_loss"] == pytest.approx(total / len(rows), rel=ROUNDING)


def test_rows_given_after_the_reference_was_made_are_refused(tmp_path):
    trainer = make_trainer(tmp_path, pairs(4))
    with pytest.raises(ValueError, match="reference is the model before training"):
        trainer.evaluate(pairs(3))


@pytest.mark.parametrize("names", [("easy", "hard"), ("eval", "hard"), ("train", "eval"), ("eval_hard", "hard")])
def test_every_evaluation_set_is_reported_under_its_own_name(tmp_path, names):
    rows = dict(zip(names, (pairs(3), singles(4)), strict=True))
    trainer = make_trainer(tmp_path, pairs(4), eval_rows=rows)
    metrics = trainer.evaluate()
    for name, own in rows.items():
        alone = make_trainer(tmp_path, pairs(4), eval_rows=own).evaluate()
        assert metrics[f"eval_{name}_loss"] == pytest.approx(alone["eval_loss"], rel=1e-6)


@pytest.mark.parametrize("evaluation", [pairs(3), {"hard": pairs(3)}], ids=["one set", "a dict"])
def test_rows_to_hold_out_and_rows_to_evaluate_on_are_refused_together(tmp_path, evaluation):
    with pytest.raises(BadInput, match=r"--eval_fraction 0\.5 holds training rows out, but evaluation rows are given"):
        make_trainer(tmp_path, pairs(8), eval_rows=evaluation, eval_fraction=0.5)


@pytest.mark.parametrize("loss_type", ["bnf", "kto", "dpo"])
def test_evaluation_goes_through_all_rows_and_not_only_those_first_cut_together(tmp_path, monkeypatch, loss_type):
    from bnf_align.training import trainer as module

    whole = perturb(make_trainer(tmp_path, pairs(4), eval_rows=pairs(11), loss_type=loss_type)).evaluate()
    monkeypatch.setattr(module, "EVALUATION_STEP", 4)
    parts = perturb(make_trainer(tmp_path, pairs(4), eval_rows=pairs(11), loss_type=loss_type)).evaluate()
    first = perturb(make_trainer(tmp_path, pairs(4), eval_rows=pairs(4), loss_type=loss_type)).evaluate()
    for name in ("eval_loss", "eval_logps/chosen", "eval_rewards/rejected"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5), name
        assert parts[name] != pytest.approx(first[name], rel=1e-3), name


# ------------------------------------------------------------------------------------------------------ resume


@pytest.mark.golden
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("steps_before", [2, 3, 5])
def test_a_resumed_run_ends_bitwise_where_the_uninterrupted_one_does(tmp_path, lora, steps_before):
    options = {
        "batch_size": 4,
        "max_steps": -1,
        "num_train_epochs": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "optim": "adamw_torch",
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "learning_rate": 1e-3,
    }

    def trainer():
        config = {"peft_config": LoraConfig(**LORA, lora_dropout=0.1)} if lora else {}
        return make_trainer(tmp_path, singles(14), **options, **config)

    whole = trainer()
    whole.train()
    assert whole.state.global_step == 8
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{steps_before}"))
    assert resumed.state.global_step == 8
    assert bitwise_equal(final_weights(whole), final_weights(resumed))


@pytest.mark.golden
def test_a_resumed_run_of_bco_goes_on_with_its_mean_reward(tmp_path, caplog):
    options = {"batch_size": 4, "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "optim": "adamw_torch"}
    options |= {"loss_type": "bco", "learning_rate": 1e-3}
    whole = make_trainer(tmp_path, singles(14), **options)
    whole.train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    resumed = make_trainer(tmp_path, singles(14), **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(resumed.rewards, whole.rewards)
    assert bitwise_equal(final_weights(whole), final_weights(resumed))
    assert "rewards" not in caplog.text
    card = checkpoint / "bnf_align.json"
    card.write_text(json.dumps({k: v for k, v in json.loads(card.read_text()).items() if k != "rewards"}))
    forgetful = make_trainer(tmp_path, singles(14), **options)
    forgetful.train(resume_from_checkpoint=str(checkpoint))
    assert not bitwise_equal(final_weights(whole), final_weights(forgetful))
    assert "checkpoint-3 does not hold the rewards so far" in caplog.text


@pytest.mark.parametrize("steps", [3, 4])
def test_a_finished_run_that_is_resumed_stays_as_it_was(tmp_path, steps):
    """Four steps are an epoch; a run of three ends within it."""
    options = {"batch_size": 4, "max_steps": steps, "save_strategy": "steps", "save_steps": 1}
    finished = make_trainer(tmp_path, singles(14), **options)
    finished.train()
    finished.save_model()
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    resumed = make_trainer(tmp_path, singles(14), **options)
    resumed.train(resume_from_checkpoint="latest")
    resumed.save_model()
    after = json.loads((tmp_path / "run" / "run.json").read_text())
    assert resumed.state.global_step == steps
    assert bitwise_equal(final_weights(finished), final_weights(resumed))
    assert after["verdict"] == before["verdict"]
    assert set(after["metrics"]) == set(before["metrics"])
    moved = {name for name, value in before["metrics"].items() if after["metrics"][name] != value}
    assert not [name for name in moved if not name.startswith(("train_", "total_flos"))], moved


# --------------------------------------------------------------------------------------------------- adapters


def test_a_fresh_adapter_trains_only_itself_against_the_base(tmp_path):
    trainer = make_trainer(tmp_path, singles(8), peft_config=LoraConfig(**LORA), max_steps=2)
    base = {n: p.clone() for n, p in trainer.model.named_parameters() if "lora_" not in n}
    trainer.train()
    assert trainer.state.log_history[0]["bnf/weight"] == pytest.approx(1, abs=ROUNDING)
    assert all(torch.equal(p, base[n]) for n, p in trainer.model.named_parameters() if n in base)
    assert any(p.abs().sum() > 0 for n, p in trainer.model.named_parameters() if "lora_B" in n)


@pytest.mark.golden
def test_qlora_trains_against_its_own_quantised_base(tmp_path):
    """Evaluation mode would change the quantised kernels: reference and policy must differ neither with the reference
    just computed nor with it cached, gradients must arrive, and an evaluation in between must not end them."""
    bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    tiny_llama(258, hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    logs = []
    for computed in (True, False):
        base = AutoModelForCausalLM.from_pretrained(
            tmp_path / "base", quantization_config=BitsAndBytesConfig(**bits), dtype=torch.float32
        )
        trainer = make_trainer(
            tmp_path, singles(8), model=base, peft_config=LoraConfig(**LORA), eval_rows=singles(8), max_steps=3
        )
        assert (trainer.prepared.reference.computed_tokens > 0) is computed
        trainer.evaluate()
        trainer.train()
        logs.append([line for line in trainer.state.log_history if "grad_norm" in line])
    assert logs[0][0]["bnf/weight"] == pytest.approx(1, abs=ROUNDING)
    assert all(line["grad_norm"] > 0.1 for line in logs[0])
    assert [line["loss"] for line in logs[0]] == pytest.approx([line["loss"] for line in logs[1]], rel=ROUNDING)
    assert logs[0][2]["bnf/shift/chosen"] != 0


def test_learning_rates_differ_for_all_weights_and_for_adapters(tmp_path):
    assert make_trainer(tmp_path, pairs(4), learning_rate=None).args.learning_rate == 1e-6
    adapted = make_trainer(tmp_path, pairs(4), learning_rate=None, peft_config=LoraConfig(**LORA))
    assert adapted.args.learning_rate == 1e-5


def test_gradient_checkpointing_changes_no_gradient(tmp_path):
    for config in ({}, {"peft_config": LoraConfig(**LORA)}):
        plain = first_gradient(perturb(make_trainer(tmp_path, singles(6), **config)))
        checkpointed = make_trainer(tmp_path, singles(6), gradient_checkpointing=True, **config)
        assert relative_difference(first_gradient(perturb(checkpointed)), plain) < ROUNDING


def test_dropout_is_off_unless_asked_for(tmp_path):
    model = tiny_llama(len(plain_tokenizer()), attention_dropout=0.3)
    trainer = make_trainer(tmp_path, singles(6), model=model)
    trainer.train()
    assert trainer.state.log_history[0]["bnf/weight"] == pytest.approx(1, abs=ROUNDING)
    kept = make_trainer(tmp_path, singles(6), model=tiny_llama(258, attention_dropout=0.3), disable_dropout=False)
    kept.train()
    assert kept.state.log_history[0]["bnf/weight"] < 0.99


# ---------------------------------------------------------------------------------------------- configuration


def test_bnf_has_no_loss_hyper_parameter():
    with pytest.raises(TypeError):
        BNFConfig(output_dir="out", loss_kwargs={"beta": 0.1})
    with pytest.raises(TypeError):
        BNFConfig(output_dir="out", beta=0.1)
    with pytest.raises(BadInput, match="bnf takes no hyper-parameter; loss_kwargs has beta"):
        PreferenceConfig(output_dir="out", loss_kwargs={"beta": 0.1})


def test_bnf_trainer_refuses_the_settings_of_another_loss():
    with pytest.raises(BadInput, match="BNFTrainer trains with bnf, args say dpo"):
        BNFTrainer(tiny_llama(), PreferenceConfig(output_dir="out", loss_type="dpo"), train_dataset=pairs(2))


def test_loss_kwargs_are_read_from_json_and_checked_against_the_signature():
    config = PreferenceConfig(output_dir="out", loss_type="simpo", loss_kwargs='{"beta": 10, "gamma": 3}')
    assert config.hyperparameters == {"beta": 10, "gamma": 3}
    with pytest.raises(BadInput, match="simpo takes beta, gamma; loss_kwargs has tau"):
        PreferenceConfig(output_dir="out", loss_type="simpo", loss_kwargs={"tau": 1})


def test_loss_kwargs_reach_the_loss(tmp_path):
    losses = []
    for beta in (0.1, 1.0):
        trainer = perturb(make_trainer(tmp_path, pairs(4), loss_type="dpo", loss_kwargs={"beta": beta}))
        trainer.train()
        losses.append(trainer.state.log_history[0])
    assert losses[0]["loss"] != losses[1]["loss"]
    assert losses[1]["rewards/chosen"] == pytest.approx(10 * losses[0]["rewards/chosen"], rel=ROUNDING)


def test_streaming_data_and_float16_are_refused(tmp_path):
    import datasets

    with pytest.raises(BadInput, match="Streaming"):
        make_trainer(tmp_path, datasets.Dataset.from_list(pairs(4)).to_iterable_dataset(), batch_size=2)
    with pytest.raises(BadInput, match="float16"):
        make_trainer(tmp_path, pairs(4), model=tiny_llama(258).half())


@pytest.mark.parametrize("head", ["fused", "logits"])
def test_a_mixture_of_experts_is_trained_without_its_router_loss_and_that_is_said_once(tmp_path, caplog, head):
    """Also where its config asks for the loss, and however the step is cut."""

    def gradient(output_router_logits, budget):
        caplog.clear()
        torch.manual_seed(0)
        config = MixtralConfig(vocab_size=258, num_local_experts=4, router_aux_loss_coef=0.02, **SIZES)
        config.output_router_logits = output_router_logits
        model = MixtralForCausalLM(config)
        found = first_gradient(
            make_trainer(tmp_path, pairs(6), model=model, head=head, max_tokens_per_micro_batch=budget)
        )
        said = [record.message for record in caplog.records if "router loss" in record.message]
        assert len(said) == 1
        assert "router_aux_loss_coef 0.02" in said[0]
        return found

    expected = gradient(False, 10**6)
    assert expected["model.layers.0.mlp.gate.weight"].abs().max() > 0
    for asked, budget in ((True, 10**6), (True, 60)):
        assert relative_difference(gradient(asked, budget), expected) < ROUNDING
    make_trainer(tmp_path, pairs(4), router_aux_loss_coef=0.0)
    with pytest.raises(BadInput, match=r"router_aux_loss_coef 0\.01: 0 is needed\. Mixtures of experts"):
        make_trainer(tmp_path, pairs(4), router_aux_loss_coef=0.01)


def test_a_model_without_experts_says_nothing_of_a_router(tmp_path, caplog):
    make_trainer(tmp_path, pairs(4))
    assert "router" not in caplog.text


def test_adapters_on_the_head_and_prompt_learning_are_refused(tmp_path):
    from peft import PromptTuningConfig

    with pytest.raises(BadInput, match="output head"):
        make_trainer(tmp_path, pairs(4), peft_config=LoraConfig(**{**LORA, "target_modules": ["lm_head"]}))
    with pytest.raises(BadInput, match="virtual tokens"):
        make_trainer(tmp_path, pairs(4), peft_config=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))


def test_training_on_ups_alone_is_warned_of_except_where_it_is_the_method(tmp_path):
    ups = [row for row in singles(12) if row["label"]]
    assert "only ups" in make_trainer(tmp_path, ups).prepared.reports["train"].warnings[0]
    assert make_trainer(tmp_path, ups, loss_type="sft").prepared.reports["train"].warnings == []


def shifts(up, down, saturated=0.0, **more):
    return {"bnf/shift/chosen": up, "bnf/shift/rejected": down, "bnf/saturated": saturated, **more}


@pytest.mark.parametrize(
    ("metrics", "said", "healthy"),
    [
        (shifts(0.03, -0.1), "chosen +0.0300, rejected -0.1000", True),
        (shifts(-0.009, -0.1), "did not fall", True),
        (shifts(-0.5, -1.0), "Chosen answers collapsed", False),
        (shifts(0.0, 0.0), "hardly differ", False),
        (shifts(-0.1, 0.03), "Chosen answers became less likely too", False),
        (shifts(0.03, 0.1), "hardly differ", False),
        (shifts(0.03, -0.1, saturated=0.3), "30% of tokens hardly train any more", True),
        ({"loss": 1.0}, "No reference", False),
        ({"bnf/shift/chosen": 0.3, "bnf/saturated": 0.0}, "only one side", False),
        ({"bnf/shift/rejected": -0.3, "bnf/saturated": 0.0}, "only one side", False),
        ({"bnf/shift/chosen": 0.03, "bnf/shift/rejected": -0.1}, "chosen +0.0300, rejected -0.1000", False),
        (shifts(math.nan, -0.1), "bnf/shift/chosen is NaN or infinite", False),
        (shifts(0.1, math.nan), "bnf/shift/rejected is NaN or infinite", False),
        (shifts(0.1, -math.inf), "bnf/shift/rejected is NaN or infinite", False),
        (shifts(0.1, -0.1, saturated=math.nan), "bnf/saturated is NaN or infinite", False),
        (shifts(0.1, -0.1, loss=math.nan), "loss is NaN or infinite", False),
    ],
)
def test_healthy_is_said_only_where_every_quantity_was_checked_and_is_finite(metrics, said, healthy):
    from bnf_align.training.health import health

    text = health(metrics).text
    assert said in text
    assert text.count("healthy") == (1 if healthy or "Not healthy" in text or "NaN" in text else 0)
    assert text.startswith("Not healthy") == ("NaN" in text)


@pytest.mark.parametrize(
    ("metrics", "colour"),
    [
        (shifts(0.03, -0.1), "green"),
        ({"loss": 1.0}, "green"),
        (shifts(-0.02, -0.1), "amber"),
        (shifts(0.03, -0.1, saturated=0.3), "green"),
        (shifts(-0.21, -2.0), "red"),
        (shifts(-0.19, -2.0), "amber"),
        (shifts(-0.6, -2.0, saturated=0.3), "red"),
        (shifts(0.1, math.nan), "red"),
    ],
)
def test_the_colour_of_a_run(metrics, colour):
    from bnf_align.training.health import health

    assert health(metrics).colour == colour


def test_a_collapse_is_logged_and_stops_the_run_where_that_is_asked_for(tmp_path):
    settings = {"max_steps": 2, "logging_steps": 1, "learning_rate": 1e-9, "check_step_0": False}
    for name, moved, stop in (("green", 0.0, True), ("red", 1.0, False), ("stopped", 1.0, True)):
        trainer = make_trainer(tmp_path / name, pairs(8), stop_on_collapse=stop, **settings)
        responses = trainer.train_dataset.responses
        responses.ref_logps = responses.ref_logps + moved  # as if every token had lost a nat
        if name == "stopped":
            with pytest.raises(
                BadInput, match=r"Step 1: stopped, as --stop_on_collapse says.*collapsed.*No checkpoint"
            ):
                trainer.train()
        else:
            trainer.train()
        logged = [line["bnf/health"] for line in trainer.state.log_history if "bnf/health" in line]
        assert logged == {"green": [0, 0], "red": [2, 2], "stopped": [2]}[name]
    assert trainer.record.as_dict()["health"] == "red"


def test_a_verdict_on_training_looks_back_as_far_as_sixteen_responses():
    """A last step of five answers, the rest of an epoch, called a run collapsed whose steps before were amber."""
    from bnf_align.training.health import recent

    lines = [{"bnf/responses": count, "bnf/shift/chosen": shift} for count, shift in ((8, -3), (10, 0.1), (20, 0.2))]
    lines += [{"eval_loss": 7.0}, {"bnf/responses": 2, "bnf/shift/chosen": -1.0, "bnf/shift/rejected": -2.0}]
    said = [recent(lines[: end + 1]) for end in range(len(lines))]
    means = [-3, (8 * -3 + 10 * 0.1) / 18, 0.2, 0.2, (20 * 0.2 - 2) / 22]
    assert [one["bnf/shift/chosen"] for one in said] == pytest.approx(means)
    assert said[-1]["bnf/shift/rejected"] == -2.0  # of the only line that had any
    assert recent([{"loss": 1.0}]) == {}


def test_the_verdict_of_a_run_is_about_its_last_steps_together(tmp_path):
    trainer = make_trainer(tmp_path, pairs(9), batch_size=8, logging_steps=1, learning_rate=3e-3, max_steps=2)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "bnf/responses" in line]
    assert [line["bnf/responses"] for line in lines] == [16, 2]
    both = (16 * lines[0]["bnf/shift/rejected"] + 2 * lines[1]["bnf/shift/rejected"]) / 18
    assert f"rejected {both:+.4f}" in trainer.record.health().text


def test_a_task_that_is_answered_in_training_is_no_evaluation_set(tmp_path):
    trainer = make_trainer(tmp_path, pairs(8), batch_size=8, check_step_0=False, logging_steps=1, max_steps=1)
    responses = trainer.train_dataset.responses
    responses.ref_logps = responses.ref_logps + 1.0
    trainer.train()
    assert trainer.record.health().colour == "red"
    trainer.log({"eval_gsm8k/accuracy": 50.0})
    assert trainer.record.health().colour == "red"


def test_a_max_length_beyond_the_model_is_said(tmp_path, caplog):
    make_trainer(tmp_path, pairs(4), max_length=4096)
    assert "max_length 4096 is above the 512 positions" in caplog.text


# ------------------------------------------------------------------------------------------- what a run leaves


def test_a_model_without_a_path_needs_its_tokenizer_to_be_passed():
    with pytest.raises(BadInput, match="has no path to find its tokenizer by: pass processing_class"):
        BNFTrainer(tiny_llama(), BNFConfig(output_dir="out", use_cpu=True), train_dataset=pairs(2))


def test_a_model_without_a_path_is_the_reference_by_its_weights(tmp_path, caplog):
    """TRL looks for one by the name "" on the hub."""
    trainer = make_trainer(tmp_path, pairs(2))
    reference = trainer.record.as_dict()["reference"]["namespace"]
    assert f"the weights that were passed, which have no name; in the cache it is {reference}" in caplog.text


def test_run_json_and_the_model_card_say_what_the_run_did(tmp_path):
    rows = [*pairs(6), {"prompt": "p", "chosen": "same", "rejected": "same"}, *singles(3)]
    trainer = make_trainer(tmp_path, rows, eval_rows=pairs(2), batch_size=3, max_steps=2)
    trainer.train()
    assert not (tmp_path / "run" / "run.json").exists()  # nothing is claimed of weights that are not there
    trainer.save_model()
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    train = run["data"]["train"]
    assert (train["rows"], train["pairs"], train["ups"] + train["downs"]) == (10, 6, 3)
    assert train["dropped"] == {"chosen and rejected are the same": 1}
    assert train["reasons"] == {"chosen and rejected are the same": {"code": "equal_answers", "parameters": {}}}
    scored = sum(steps.responses.masks.sum() for steps in trainer.prepared.steps.values())
    assert run["reference"]["computed_tokens"] + run["reference"]["cached_tokens"] == scored
    assert run["metrics"]["loss"] == trainer.state.log_history[1]["loss"]
    assert run["tokens_per_second"] > 0
    assert run["train_seconds"] > 0
    assert run["peak_memory_bytes"] > 2**20
    assert {"bnf-align", "torch", "transformers"} <= run["versions"].keys()
    assert run["arguments"]["loss_type"] == run["loss_type"] == "bnf"
    card = (tmp_path / "run" / "README.md").read_text()
    assert run["reference"]["namespace"] in card
    assert "6 pairs" in card
    assert "seed 42" in card
