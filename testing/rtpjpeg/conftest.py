# SPDX-License-Identifier: MIT OR Apache-2.0
import shutil

import pytest
from rtpjpeg_harness import carry


@pytest.fixture(scope="session", autouse=True)
def plugin():
    carry.assert_plugin()


@pytest.fixture(scope="session")
def needs():
    """needs('program') skips, and so counts, a test whose program is missing."""

    def check(program):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")

    return check
