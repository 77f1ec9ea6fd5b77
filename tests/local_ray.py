"""Ray on this machine, apart from any other Ray that runs here."""

import os
import shutil
import tempfile
from contextlib import contextmanager


@contextmanager
def own_ray_folder():
    """Keep what Ray notes of its clusters in a folder of their own.

    In the folder that all share, a cluster notes its address, and the Ray of another test joins it.
    """
    # short: the path of a socket has 107 characters at most
    folder = tempfile.mkdtemp(prefix="ray-")
    before = {name: os.environ.get(name) for name in ("RAY_TMPDIR", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")}
    os.environ.update(RAY_TMPDIR=folder, RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def start_local_ray(num_cpus):
    import ray

    with own_ray_folder():
        ray.init(
            address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, configure_logging=False
        )
        yield
        ray.shutdown()
