"""Episodes on disk, in the layout of LeRobot's dataset v3.0: write, read, split, check. Needs no torch."""

from mobile_vla.data.merge import MergeReport, merge_shards
from mobile_vla.data.reader import Damage, Dataset, Episode, ImageBatch
from mobile_vla.data.split import Split, data_hash, load_split, make_split
from mobile_vla.data.store import EpisodeRecord, Extras
from mobile_vla.data.validate import Problem, validate
from mobile_vla.data.writer import EpisodeWriter, Recording

__all__ = [
    "Damage",
    "Dataset",
    "Episode",
    "EpisodeRecord",
    "EpisodeWriter",
    "Extras",
    "ImageBatch",
    "MergeReport",
    "Problem",
    "Recording",
    "Split",
    "data_hash",
    "load_split",
    "make_split",
    "merge_shards",
    "validate",
]
