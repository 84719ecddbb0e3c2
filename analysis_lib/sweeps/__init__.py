"""Sweeps: many models, data sets, analyses and seeds, on one machine or a cluster.

A sweep file names what to compute; :func:`read` checks it, :func:`plan` turns it into jobs with
an estimate of memory and time, :func:`run` lets Snakemake run those that are not done yet.
"""

from .engine import Report, done, run
from .planning import Job, Request, plan
from .sweep import Sweep, read
from .work import perform

__all__ = ["Job", "Report", "Request", "Sweep", "done", "perform", "plan", "read", "run"]
