"""A local Ray lets nobody in who does not have its token."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray


@pytest.mark.usefixtures("local_ray")
def test_a_stranger_is_refused_and_a_holder_of_the_token_is_not() -> None:
    program = (
        f"import ray; ray.init(address='{ray.get_runtime_context().gcs_address}', log_to_driver=False); print('inside')"
    )
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    results = [
        subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        for env in (stranger, dict(os.environ))
    ]
    assert [("inside" in result.stdout, result.returncode == 0) for result in results] == [(False, False), (True, True)]
