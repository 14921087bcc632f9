"""What is this file, what is wrong with it, what would training do with it: by the functions training uses."""

from bnf_align.data.doctor.examination import examine
from bnf_align.data.doctor.result import CLEAN, UNUSABLE, WARNINGS, DoctorResult

__all__ = ["CLEAN", "UNUSABLE", "WARNINGS", "DoctorResult", "examine"]
