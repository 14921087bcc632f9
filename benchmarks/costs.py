"""`results/costs.md`: `results/claims.csv` as one table for people (`head.py`, `steps.py`, `real_peers.py`)."""

from __future__ import annotations

import csv
from pathlib import Path

from protocol import RESULTS

UNITS = {"memory-bnf-sft": "{:.0f} B", "gradient": "{:.1e}", "flops-bnf-sft": "{:.6f}"}
ORDER = (
    *("flops-bnf-sft", "time-bnf-sft", "time-bnf-trl-sft", "memory-bnf-sft"),
    *("memory-appendix-b-32k", "memory-appendix-b-128k", "time-appendix-b", "time-trl-head", "gradient"),
    *("tokens-dpo-memory", "tokens-dpo-precomputed", "tokens-dpo-grouped"),
    *("tokens-kto-memory", "tokens-kto-precomputed", "reference-pass", "one-epoch-cold", "noise-floor"),
    *("real-dpo-trl", "real-dpo-trl-memory", "real-kto-trl", "real-kto-trl-memory", "real-gemm-share"),
)

INTRODUCTION = """\
# What BNF costs

Measured on a processor, one pinned thread, CPU seconds, float32, in rounds whose order turns over; a figure is the
median over rounds of a ratio, low and high its bootstrap 95 % interval. With few rounds that interval is close to the
smallest and the largest round. Made by `python benchmarks/head.py`, `python benchmarks/steps.py` and
`python benchmarks/real_peers.py` (the rows `real-*`); nothing here was measured on a GPU.

* The model of the steps is a Llama with random weights: width 256, 4 layers, vocabulary 32,000. More than half of its
  work is the head, so what the head saves weighs more here than in a large model with the same vocabulary.
* TRL runs with its own trainers and their defaults, with three exceptions: batch 4 and, in its favour, gradient
  checkpointing and bfloat16 switched off, as on our side. Its head keeps its tile of 32,768 and, on a processor,
  scores prompts too. We run with our default budget of 8,192 tokens a micro-batch.
* The rows `time-*` of steps have two responses of equal length: no padding on either side. The rows `tokens-*` have 16
  pairs with the lognormal lengths of `padding.py`, a fifth as long, as one optimizer step: four batches for DPO, eight
  for KTO, which gets the same responses one by one in random order.
* The row `reference-pass` compares what a user waits for: the whole pass, with the hash of the weights and the cache
  files, and a whole epoch of `train()` over 64 such pairs, with optimizer and data loader.
* A step is `training_step`: forward and backward, without optimizer and data loader, on both sides.
* The rows `real-*` are SmolLM2-135M-Instruct and pairs of people, with both sides' own `train()` and the optimizer in
  the step. `real_peers.json` has the losses of every step: of DPO they agree with TRL's to 1e-6; of KTO as well where
  z0 is 0, and to 0.01 where it is not, since TRL takes other rows for it.
* "holds" compares with the threshold that was set before anything was measured.
"""

CLOSING = """\
## What is not better

* Against fine-tuning there is nothing to win: BNF multiplies exactly as much as SFT, and the reference pass comes on
  top once (row `reference-pass`). Later epochs, other learning rates and other losses on the same data reuse it.
* DPO can precompute its reference as well. Its matmuls per token are then those of BNF; what remains is padding and,
  on a processor, TRL's head (row `tokens-dpo-precomputed`), and with batches grouped by length less of that
  (`tokens-dpo-grouped`).
* With a cold cache and a single epoch, reference and training together are to be compared with DPO's epoch
  (`one-epoch-cold`): the two do the same number of matmuls per token.
* `time-bnf-sft` is a comparison of equal work: what separates it from 1 is noise, of the size of `noise-floor`.
* The peak of Appendix B is that of the printed code. With everything dropped as soon as nothing needs it ("trimmed" in
  the rows `memory-appendix-b-*`) it takes less, and less than six times ours.
* On a GPU TRL's head is a Triton kernel that leaves prompts out: `time-trl-head` says nothing about it.
"""


def write_costs(claims: Path = RESULTS / "claims.csv", path: Path | None = None) -> None:
    """Write the table beside `claims`; rows that have not been measured say so."""
    with claims.open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    lines = ["| id | figure | low | high | threshold | holds | what |", "|---|---|---|---|---|---|---|"]
    lines += [_line(claim_id, rows.get(claim_id)) for claim_id in ORDER]
    found = [rows[claim_id] for claim_id in ORDER if claim_id in rows]
    where = sorted({f"{row['machine']}; {row['versions']}" for row in found})
    table, machines = "\n".join(lines), "\n".join(f"* {text}" for text in where)
    text = f"{INTRODUCTION}\n{table}\n\n{CLOSING}\n## Machine and versions\n\n{machines}\n"
    (path or claims.with_name("costs.md")).write_text(text, encoding="utf-8")


def _line(claim_id: str, row: dict[str, str] | None) -> str:
    if row is None:
        return f"| {claim_id} | | | | | not measured | |"
    cells = [UNITS.get(claim_id, "{:.3f}").format(float(row[name])) for name in ("figure", "low", "high")]
    return f"| {claim_id} | {' | '.join(cells)} | {row['threshold']} | {row['holds']} | {row['claim']} |"
