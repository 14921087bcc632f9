"""Memory of `analyze` by the number of responses: 100, 1,000 and 10,000 of 200 tokens through a tiny Llama.

    python benchmarks/analysis_memory.py

Each in a process of its own (`protocol.peak_memory`): one pass of a model and of its reference, the summary and the
figures. Writes `results/analysis_memory.json`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from random import Random

from protocol import RESULTS, peak_memory
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from bnf_align.analysis import Method, figure_3, figure_4, measure, read_answers, save, summary
from bnf_align.outputs import write_json
from bnf_align.training.record import versions

COUNTS = (100, 1_000, 10_000)
TOKENS = 200
WORDS = [f"w{number}" for number in range(500)]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def main() -> None:
    """Measure each count, write and print."""
    found = {count: peak_memory(analysis, count) for count in COUNTS}
    further = {count: (found[count] - found[COUNTS[0]]) / (count - COUNTS[0]) for count in COUNTS[1:]}
    record = {"tokens": TOKENS, "peak_bytes": found, "bytes_per_further_response": further, "versions": versions()}
    write_json(RESULTS / "analysis_memory.json", record)
    print(json.dumps(record, indent=2))


def analysis(count: int) -> Callable[[], None]:
    """One analysis of `count` responses; a small one has warmed the libraries up."""
    analyse(10)
    return partial(analyse, count)


def analyse(count: int) -> None:
    """Every step of `bnf-align analyze` but reading a file."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<eos>", *WORDS])}, "<eos>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    random = Random(0)
    rows = (
        {"prompt": random.choice(WORDS), "completion": " " + " ".join(random.choices(WORDS, k=TOKENS - 1))}
        for _ in range(count)
    )
    answers = read_answers(rows, tokenizer, source="rows")
    with tempfile.TemporaryDirectory() as folder:
        files = measure([Method("m", partial(model, 1), answers)], partial(model, 0), folder)
        summary(files, "m", {"m": []})
        save(figure_3(files), folder, "figure3")
        save(figure_4(files, "m"), folder, "figure4")


def model(seed: int) -> LlamaForCausalLM:
    """A tiny Llama with random weights."""
    set_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS) + 1, **SIZES))


if __name__ == "__main__":
    main()
