"""What `import thresher` promises."""

import pytest

import thresher as th


@pytest.mark.parametrize("name", th.__all__)
def test_every_public_name_can_be_loaded(name):
    assert getattr(th, name) is not None
