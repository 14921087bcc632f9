"""A folder with every kind of record that a page is made from, small enough to be checked by hand."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HOSTILE = (
    '</script><script>window.owned = 1</script><img src=x onerror="window.owned = 1">'
    '<svg onload="window.owned = 1"></svg></style></textarea>{{ 7 * 7 }} ${window.owned = 1}'
)
HOSTILE_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60" onload="window.owned = 1; parent.owned = 1">'
    "<script>window.owned = 1; parent.owned = 1</script><rect width='90' height='60'/></svg>"
)


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def estimate(mean: float, low: float, high: float) -> dict:
    return {"mean": mean, "low": low, "high": high}


def quickstart(better=(0.25, 0.2, 0.3), other=(0.01, -0.02, 0.04)) -> dict:
    """`quickstart.json`, as far as a report reads it."""
    changed = {
        "before": estimate(0.5, 0.45, 0.55),
        "after": estimate(0.5 + better[0], 0.7, 0.8),
        "change": estimate(*better),
    }
    same = {
        "before": estimate(0.9, 0.88, 0.92),
        "after": estimate(0.9 + other[0], 0.9, 0.93),
        "change": estimate(*other),
    }
    likely = {
        "before": estimate(-0.5, -0.6, -0.4),
        "after": estimate(-0.75, -0.8, -0.7),
        "change": estimate(-0.25, -0.3, -0.2),
    }
    return {
        "seed": 3,
        "measures": {"math sampled": changed, "sort sampled": same, "logps down": likely},
        "conclusion": "In short.",
        "preferences": {"rows": 9, "ups": 5, "downs": 4},
    }


def run(loss: str = "bnf", model: str = "base", health: str = "green", **fields) -> dict:
    """`run.json`."""
    return {
        "model": model,
        "loss_type": loss,
        "loss_kwargs": {},
        "seed": 7,
        "devices": 1,
        "data": {
            "train": {
                **{"source": "thumbs.jsonl", "rows": 12, "pairs": 0, "ups": 5, "downs": 4},
                **{"dropped": {"the completion is empty": 3}, "cut": 2, "lengths": {"p50": 10, "p95": 20, "max": 30}},
                **{"notes": [], "warnings": ["an earlier row is repeated"]},
            }
        },
        "reference": {"computed_tokens": 1234, "cached_tokens": 56, "namespace": "abc123"},
        "metrics": {"loss": -0.5},
        "verdict": "Chosen and rejected have moved apart: healthy.",
        "health": health,
        "train_seconds": 120.0,
        "tokens_per_second": 987.6,
        "peak_memory_bytes": 2**30,
        "plan": {
            "memory_bytes": {"total": 2**31},
            "flops": {"training": 1000.0, "reference_pass": 125.0},
            "workload": {},
            "hours": None,
        },
        "versions": {"python": "3.12.1", "torch": "2.9.9"},
        "arguments": {"output_dir": "out", "learning_rate": 0.0003, "seed": 7, "beta": None},
        **fields,
    }


def health(finished: bool = True, steps: int = 4) -> dict:
    """`health.json`."""
    colours = ["green", "green", "amber", "red"]
    history = [
        {
            **{"step": 5 * (n + 1), "colour": colours[min(n, 3)], "loss": -0.1 * (n + 1)},
            **{"bnf/shift/chosen": 0.01 * n, "bnf/shift/rejected": -0.1 * n},
            **{"bnf/weight/chosen": 1 - 0.1 * n, "bnf/weight/rejected": 1 - 0.2 * n},
        }
        for n in range(steps)
    ]
    last = {"step": history[-1]["step"], "max_steps": 20, "finished": finished}
    return {"colour": history[-1]["colour"], "text": "Chosen answers collapsed.", **last, "history": history}


def samples(count: int = 3) -> str:
    """`samples.jsonl`: better, worse, same, and again."""
    pairs = [
        ("it is five", "it is four", False, True),
        ("yes of course", "no never", True, False),
        ("the same words", "the same words", True, True),
    ]
    rows = [
        {"prompt": f"question {n + 1}", "before": pair[0], "after": pair[1]}
        | {"before_correct": pair[2], "after_correct": pair[3]}
        for n in range(count)
        for pair in [pairs[n % 3]]
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def card() -> dict:
    """A data card of `select`."""
    return {
        **{"prompts": 30, "candidates": 120, "duplicates": 4, "pairs": 0, "ups": 70, "downs": 50},
        **{"left_out": {"all candidates are alike": 6}, "length_auc": 0.62, "near_identical_pairs": 2},
        **{"pair_similarity": None, "scored": {"scorer": "verifier:is_right"}},
    }


def summary() -> dict:
    """`summary.json` of `analyze`."""
    return {
        "reference": "base",
        "models": {"BNF": "out"},
        "data": {"BNF": "rows.jsonl"},
        "methods": {"BNF": {"responses": 2, "gini": {"mean": 0.625}}},
        "bins": {"of": "BNF", "edges": [0.5], "shares": {"BNF": [0.25]}},
    }


def tokens(
    path: Path, pieces: tuple[str, ...] = (" it", " is", " four"), rows: int = 2, prompt: str = "2 + 2?"
) -> Path:
    """`methods/NAME.parquet` of `analyze`; log-ratios are 0.5, -0.25, 0."""
    size = len(pieces)
    old, new, weights = [-1.0, -0.5, -2.0] * size, [-0.5, -0.75, -2.0] * size, [0.95, 0.05, 0.5] * size
    both = [None, True, False]
    table = pa.table(
        {
            "id": [f"{n}/up" for n in range(rows)],
            "item": list(range(rows)),
            "side": ["up"] * rows,
            "label": [both[(n + 1) % 3] for n in range(rows)],
            "prompt": [prompt] * rows,
            "pieces": [list(pieces)] * rows,
            **{
                name: pa.array([values[:size]] * rows, pa.list_(pa.float32()))
                for name, values in {
                    **{"logps": new, "ref_logps": old, "logits": new, "ref_logits": old, "weights": weights}
                }.items()
            },
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def whole(folder: Path, hostile: bool = False) -> Path:
    """A folder with every record; with texts and names that would do harm, if they were more than texts."""
    name = HOSTILE if hostile else "base"
    write(folder / "quickstart.json", quickstart())
    write(folder / "model" / "run.json", run(model=name, verdict=HOSTILE if hostile else "healthy"))
    write(folder / "model" / "health.json", health())
    write(folder / "data" / "preferences.jsonl.card.json", card())
    write(folder / "analysis" / "summary.json", summary())
    tokens(
        folder / "analysis" / "methods" / "BNF.parquet", (HOSTILE, "a", "b") if hostile else (" it", " is", " four")
    )
    svg = HOSTILE_SVG if hostile else HOSTILE_SVG.replace("window.owned = 1; parent.owned = 1", "")
    for number in range(1, 5):
        write(folder / "analysis" / f"figure{number}.svg", svg)
    text = samples(60)
    if hostile:
        row = {"prompt": HOSTILE, "before": HOSTILE, "after": f"{HOSTILE} more"}
        text = json.dumps(row) + "\n" + text
    write(folder / "model" / "samples.jsonl", text)
    write(folder / "claims.csv", "id,claim,figure,low,high,threshold,holds\na,it is fast,0.75,0.7,0.8,> 0.5,yes\n")
    return folder
