"""A cluster of Ray on this machine."""

import os
from contextlib import contextmanager


@contextmanager
def start_local_ray(num_cpus):
    import ray

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
