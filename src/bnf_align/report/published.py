"""The paper's own numbers, as printed in Tables 1 and 3 to 7.

Source: "As Simple as Fine-Tuning: LLM Alignment via Bidirectional Negative Feedback Loss", ICLR 2025, arXiv
2410.04834.
"""

from __future__ import annotations

PAPER = "arXiv 2410.04834"

LLAMA, MISTRAL, GEMMA = "Meta-Llama-3-8B-Instruct", "Mistral-7B-Instruct-v0.2", "Gemma-2-9b-It"

# Wild-Bench Elo and score, Arena-Hard LC and WR, GSM8K, MATH, CRUX, MMLU; average rank. Ranks follow from the columns.
RESULTS = {
    LLAMA: """
        Base     1131  29.2  33.9  36.1  78.5   6.8  38.1  62.4  6.00
        SLiC-HF  1142  33.2  49.1  46.3  66.6   8.3  33.9  61.4  6.00
        DPO      1155  39.5  60.4  62.2  70.5   8.5  31.8  56.4  3.75
        IPO      1146  36.1  50.1  51.3  79.9   9.2  39.2  59.8  3.75
        KTO      1139  34.7  45.4  45.8  78.8  10.0  38.9  63.7  4.13
        ORPO     1149  36.2  49.6  49.2  74.8   9.3  34.5  63.5  3.88
        SimPO    1149  37.2  52.2  52.5  56.6   6.0  32.6  55.0  5.25
        BNF      1153  37.5  54.8  52.1  77.0   9.3  35.4  61.4  2.88
    """,
    MISTRAL: """
        Base     1098  25.6  19.2  18.9  42.7   3.9  25.1  53.0  5.00
        SLiC-HF  1130  31.2  28.9  31.0  43.6   2.6  24.3  52.1  3.75
        DPO      1127  29.7  29.8  30.4  42.2   3.1  22.3  53.2  4.50
        IPO      1121  26.9  25.4  26.1  35.8   3.6  28.3  50.7  5.75
        KTO      1126  30.2  27.8  27.7  42.6   2.9  23.3  52.8  5.00
        ORPO     1130  30.8  33.4  34.4  36.9   2.9  23.6  51.8  4.38
        SimPO    1133  32.0  36.0  36.6  33.7   2.2  21.4  52.2  4.13
        BNF      1131  31.1  35.2  34.5  39.7   2.6  24.3  54.8  3.00
    """,
    GEMMA: """
        Base     1160  42.7  54.9  54.5  87.9  19.9  44.6  72.7  3.25
        DPO      1181  53.2  77.3  81.3  88.5  20.2  44.3  72.8  1.75
        SimPO    1181  53.3  72.6  75.4  87.7  18.2  41.4  72.6  3.13
        BNF      1186  53.2  77.5  80.8  88.0  21.8  45.3  72.7  1.50
    """,
}

# Table 6, on Meta-Llama-3-8B-Instruct: the same columns.
PAIRING = {
    LLAMA: """
        Base  1131  29.2  33.9  36.1  78.5   6.8  38.1  62.4  3.63
        0%    1146  36.0  49.3  48.4  80.1   9.4  35.6  62.2  3.13
        25%   1148  36.2  51.5  49.7  77.9   9.3  36.7  61.8  2.88
        50%   1148  36.7  53.5  51.4  76.4  10.0  37.9  61.2  2.63
        100%  1153  37.5  54.8  52.1  77.0   9.3  35.4  61.4  2.50
    """,
}

# Table 5: Wild-Bench in characters, Arena-Hard in tokens.
LENGTHS = {
    LLAMA: """
        Base     2975  595
        SLiC-HF  2318  469
        DPO      2665  602
        IPO      2843  547
        KTO      2776  543
        ORPO     2551  523
        SimPO    2533  527
        BNF      2521  496
    """,
    MISTRAL: """
        Base     2832  507
        SLiC-HF  3198  576
        DPO      2655  509
        IPO      3431  545
        KTO      2813  504
        ORPO     2913  524
        SimPO    3214  521
        BNF      2827  526
    """,
}

# Table 1: Wild-Bench Elo.
ELO = {
    "GPT-4o (05-13)": 1237,
    "Claude-3-Opus": 1216,
    "Gemma-2-9B-BNF": 1186,
    "Nemotron-4-340B-it": 1184,
    "Gemma-2-27B-it": 1183,
    "Gemma-2-9B-SimPO": 1181,
    "Gemma-2-9B-DPO": 1181,
}

# Table 3.
BENCHMARKS = {
    "arena_hard": ("500", "1", "×", "406", "406", "✓", "Pair"),
    "wild_bench": ("1024", "≤5", "✓", "979", "3402", "✓", "Score+Pair"),
}

# Section 4: judge and baseline.
JUDGES = {"arena_hard": ("GPT-4o-mini", "GPT-4-0314"), "wild_bench": ("GPT-4o", "–")}

# Table 7: GPU hours of one training on 8 A100-80GB, bfloat16, and of all trainings.
GPU_HOURS = {
    "Llama-3-8B-Inst": ("40", "600"),
    "Mistral-7B-Inst-v0.2": ("40", "480"),
    "Gemma-2-9B-it": ("56", "700"),
}
API_COSTS = (
    "The paper's costs of judging, in dollars per model and in all: Wild-Bench 5 and 150, Arena-Hard 0.2 and 5, for "
    "each of its base models."
)


def heading(base: str) -> str:
    """The title of a section with the paper's rows."""
    return f"From the paper ({PAPER}): {base}"


def numbers(block: str) -> dict[str, list[str]]:
    """Label -> numbers as printed, from one of the blocks above."""
    return {label: values for label, *values in (line.split() for line in block.strip().splitlines())}
