"""Evaluation: closed loop against baselines, counterfactual words, recorded data; reports."""

from mobile_vla.evaluate.episode import EpisodeResult, run_episode
from mobile_vla.evaluate.plan import SUITES, PlannedEpisode, plan_episodes
from mobile_vla.evaluate.report import Report
from mobile_vla.evaluate.run import evaluate

__all__ = ["SUITES", "EpisodeResult", "PlannedEpisode", "Report", "evaluate", "plan_episodes", "run_episode"]
