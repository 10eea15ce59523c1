"""Evaluation: closed loop against baselines, counterfactual words, recorded data; reports."""

from mobile_vla.evaluate.blind import BlindPolicy
from mobile_vla.evaluate.counterfactual import ObjectResponse, SideResponse
from mobile_vla.evaluate.episode import EpisodeResult, run_episode
from mobile_vla.evaluate.fleet import DRIVERS, DriverName, Job, drive_all
from mobile_vla.evaluate.offline import OfflineReport, offline_errors
from mobile_vla.evaluate.oracle import OraclePolicy
from mobile_vla.evaluate.plan import SUITES, PlannedEpisode, plan_episodes, plan_suites
from mobile_vla.evaluate.report import Report, Summary
from mobile_vla.evaluate.run import evaluate, write_report
from mobile_vla.evaluate.statistics import Estimate, Paired, Share, Spread, spl_term, wilson

__all__ = [
    "DRIVERS",
    "SUITES",
    "BlindPolicy",
    "DriverName",
    "EpisodeResult",
    "Estimate",
    "Job",
    "ObjectResponse",
    "OfflineReport",
    "OraclePolicy",
    "Paired",
    "PlannedEpisode",
    "Report",
    "Share",
    "SideResponse",
    "Spread",
    "Summary",
    "drive_all",
    "evaluate",
    "offline_errors",
    "plan_episodes",
    "plan_suites",
    "run_episode",
    "spl_term",
    "wilson",
    "write_report",
]
