"""The benchmarks, by name. A new one is one file with a subclass of `Task`, and a line here."""

from bnf_align.evaluation.task import Task
from bnf_align.evaluation.tasks.arena_hard import ArenaHard
from bnf_align.evaluation.tasks.crux import Crux
from bnf_align.evaluation.tasks.held_out import HeldOut
from bnf_align.evaluation.tasks.ifeval import IFEval
from bnf_align.evaluation.tasks.mmlu_redux import MMLURedux
from bnf_align.evaluation.tasks.wild_bench import WildBench
from bnf_align.evaluation.tasks.zero_eval import GSM8K, MathLevel5

TASKS: dict[str, Task] = {
    task.name: task
    for task in (GSM8K(), MathLevel5(), Crux(), MMLURedux(), IFEval(), ArenaHard(), WildBench(), HeldOut())
}

__all__ = ["TASKS"]
