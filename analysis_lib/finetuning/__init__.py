"""Fine-tuning SoundNet on brain responses (Freteault et al. 2025), and what it does to sounds."""

from .baselines import ridge, ridge_head, volume_features
from .checkpoints import inputs, save_network, start_network, twin_checkpoint
from .demonstrations import batch_norm_drift, timestamp_error
from .downstream import downstream_gain, leaderboard_gain, with_share
from .head import TemporalHead, frame_positions, resample_frames
from .network import EncodingModel
from .run import checkpoint, finetune, fit, leave_one_out, predict
from .scores import predicted_runs, summarise
from .segments import Recordings, Segments, paper_chunks, record
from .settings import Settings, published_settings

__all__ = [
    "EncodingModel",
    "Recordings",
    "Segments",
    "Settings",
    "TemporalHead",
    "batch_norm_drift",
    "checkpoint",
    "downstream_gain",
    "finetune",
    "fit",
    "frame_positions",
    "inputs",
    "leaderboard_gain",
    "leave_one_out",
    "paper_chunks",
    "predict",
    "predicted_runs",
    "published_settings",
    "record",
    "resample_frames",
    "ridge",
    "ridge_head",
    "save_network",
    "start_network",
    "summarise",
    "timestamp_error",
    "twin_checkpoint",
    "volume_features",
    "with_share",
]
