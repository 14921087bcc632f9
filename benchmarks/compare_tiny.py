"""The files of the example in docs/compare.md: a base of the tiny world, pairs of its own answers, fresh prompts.

python benchmarks/compare_tiny.py FOLDER && cd FOLDER && bnf-align compare --config compare.yaml
"""

import json
import sys
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from bnf_align.construct.dataset import write_selection
from bnf_align.construct.select import Choice
from bnf_align.lab.runs import Settings, base_model
from bnf_align.lab.sample import VERIFIER, answers_with_thumbs
from bnf_align.lab.world import MATH, SORT, draw_prompts

torch.set_num_threads(1)
folder = Path(sys.argv[1])
held_out = {skill.name: draw_prompts(skill, 600, f"evaluation {skill.name} 0") for skill in (MATH, SORT)}
base, _ = base_model(folder / "base", 0, Settings(eval_prompts=600), held_out)
model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
prompts = draw_prompts(MATH, 1300, "preferences 0", avoid=set(held_out["math"]))
answers_with_thumbs(model, tokenizer, MATH, prompts[300:], 5, 0, folder / "data")
write_selection(folder / "data" / "scored.jsonl", folder / "pairs.jsonl", Choice())
for name, skill, asked in (
    ("math", MATH, held_out["math"]),
    ("sort", SORT, held_out["sort"]),
    ("dev", MATH, prompts[:300]),
):
    rows = [{"id": str(number), "prompt": prompt, "skill": skill.name} for number, prompt in enumerate(asked)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
sampled = {"rule": VERIFIER, "temperature": 0.8, "max_new_tokens": 24}
config = {
    "model": "base",
    "data": "pairs.jsonl",
    "out": "comparison",
    "validation": 0.1,
    "test": 0.2,
    "seeds": [0, 1, 2, 3, 4],
    "grid": {"batch_size": [24], "learning_rate": [1e-4, 3e-4]},
    "methods": {"sft": None, "bnf": None, "dpo": {"beta": [0.1]}},
    "evaluations": {
        "math": {**sampled, "data": "math.jsonl", "validation": "dev.jsonl"},
        "sort": {**sampled, "data": "sort.jsonl", "tax": True},
    },
    "choose_by": "math",
    "settings": {"num_train_epochs": 2, "max_length": 48},
}
(folder / "compare.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
