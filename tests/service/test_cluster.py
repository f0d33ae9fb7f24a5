"""A local Ray cluster rejects clients without its token."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray


@pytest.mark.usefixtures("local_ray")
def test_a_client_without_the_token_is_rejected() -> None:
    program = (
        f"import ray; ray.init(address='{ray.get_runtime_context().gcs_address}', log_to_driver=False); print('inside')"
    )
    without_token = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    results = [
        subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        for env in (without_token, dict(os.environ))
    ]
    assert [("inside" in result.stdout, result.returncode == 0) for result in results] == [(False, False), (True, True)]
