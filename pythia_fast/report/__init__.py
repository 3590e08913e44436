"""What a sweep found as one self-contained page (extra: `analysis`)."""

from pythia_fast.report.run import Run
from pythia_fast.report.write import write_report

__all__ = ["Run", "write_report"]
