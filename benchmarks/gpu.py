"""On a GPU: are gradients right in bfloat16, and what do BNF, fine-tuning, DPO and KTO cost there?

    python benchmarks/gpu.py [SECTION ...] [--again]
    python benchmarks/gpu.py --toy           the same code at toy sizes on the processor; prints, keeps nothing

Sections: ceiling (bfloat16 matmuls), gradient and head (Llama-3-8B head shape), peers (TRL's head and Appendix B
there), 1b (Llama-3.2-1B shape, all weights trained), 8b-lora (Llama-3-8B shape under LoRA), weight (BNF weights before
the first step). Model weights are random; DPO and KTO take the reference precomputed, as BNF does. Each section writes
its rows to `results/gpu.csv` when it is done; a section whose rows stand there already, from this machine and these
versions, is left out unless `--again` is given. Without a GPU, rows that nobody has measured yet are written as "not
measured", and the others stay.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch
from device import Device
from gpu_sections import REAL, TOY, Section, Sizes, sections
from protocol import RESULTS, Estimate, measured_here, read_rows, write_claim

NOT_MEASURED, OUT_OF_MEMORY, FAILED = "not measured", "out of memory", "failed"


def run(sizes: Sizes, device: Device, path: Path, names: Iterable[str] = (), again: bool = False) -> bool:
    """Measure sections, each on its own, and write a row per id whatever happens; whether nothing failed."""
    found, failed = sections(sizes), False
    for name in names or found:
        section = found[name]
        if not again and measured_here(section.rows, path):
            continue
        outcome = outcome_of(section, device)
        failed |= outcome == FAILED
        for claim_id, (claim, threshold) in section.rows.items():
            figure = outcome if isinstance(outcome, str) else outcome[claim_id]
            write_claim(claim_id, claim, figure, threshold, path=path)
    return not failed


def outcome_of(section: Section, device: Device) -> dict[str, Estimate] | str:
    """The figures of a section, or why there are none."""
    outcome: dict[str, Estimate] | str
    try:
        outcome = section.measure(device)
        assert outcome.keys() == section.rows.keys(), outcome.keys() ^ section.rows.keys()
    except torch.OutOfMemoryError:
        outcome = OUT_OF_MEMORY
    except Exception:  # the other sections' time on the device must not be lost with this one
        traceback.print_exc()
        outcome = FAILED
    gc.collect()  # only now, when the exception is gone, which held all that the section had made
    device.release()
    return outcome


def without_gpu(sizes: Sizes, path: Path) -> None:
    """Write a row for whatever has not been measured anywhere."""
    known = read_rows(path)
    for section in sections(sizes).values():
        for claim_id, (claim, threshold) in section.rows.items():
            if claim_id not in known or known[claim_id]["figure"] == NOT_MEASURED:
                write_claim(claim_id, claim, NOT_MEASURED, threshold, path=path)


def toy(names: Iterable[str]) -> bool:
    """Try everything out, and print it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gpu.csv"
        well = run(TOY, Device("cpu"), path, names)
        for row in read_rows(path).values():
            print(*(row[name] for name in ("id", "figure", "low", "high", "holds")), sep="\t")
    return well


def main() -> None:
    """Measure, or say that there is nothing to measure on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - sections(REAL).keys():
        parser.error(f"unknown: {', '.join(unknown)}; sections are {', '.join(sections(REAL))}")
    path, well = RESULTS / "gpu.csv", True
    if arguments.toy:
        well = toy(arguments.sections)
    elif torch.cuda.is_available():
        well = run(REAL, Device("cuda"), path, arguments.sections, arguments.again)
    else:
        without_gpu(REAL, path)
    sys.exit(not well)


if __name__ == "__main__":
    main()
