"""Environment variables for Ray, which reads them at import time: modules that import Ray import this one first.

The settings disable Tune's own result files and console output, which duplicate the ledger and the progress display,
and shorten health checks. A local Ray listens on all interfaces, so it gets a random token for authentication.
"""

from __future__ import annotations

import os
import secrets

__all__ = ["SETTINGS"]

SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # The job queue watches for nodes that are being drained, without a further process for each worker group.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_maximum_startup_concurrency": "16",
    # Hide all GPUs from a process that requested none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A trial that failed before its first epoch reports no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Tune's own handler would end its loop without calling the search's stopper.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}

# Less fragmentation of the GPU's memory; torch reads the variable when CUDA starts, in every process.
if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
    SETTINGS["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
