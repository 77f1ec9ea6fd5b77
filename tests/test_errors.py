import errno
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch

from thresher.errors import DeviceMemoryError, InputError, OutputError, SettingsError, is_environment_error


def cause(error):
    """Return what is raised instead of an error, without naming it as the cause."""
    try:
        try:
            raise error
        except type(error):
            raise InputError("model 'm': does not run") from None
    except InputError as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "is_of_environment"),
    [
        (MemoryError(), True),
        (np._core._exceptions._ArrayMemoryError((1, 2), np.dtype("f8")), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OutputError("the disk is full"), True),
        (ConnectionError("no route to the model"), True),
        (cause(torch.OutOfMemoryError("CUDA out of memory")), True),
        (cause(FileNotFoundError(errno.ENOENT, "No such file")), False),
        (DeviceMemoryError("a step is too large", is_shared=True), True),
        (DeviceMemoryError("a step is too large"), False),
        (OSError("this model has no tokenizer"), False),
        (SettingsError("the loss became nan"), False),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("bad row"), False),
    ],
)
def test_errors_of_the_machine_are_told_from_those_of_rows_and_settings(error, is_of_environment):
    assert is_environment_error(error) is is_of_environment
