# SPDX-License-Identifier: MIT OR Apache-2.0
"""Many repetitions leave nothing behind. In small; `scripts/soak` does it in full."""

from harness import endurance

# Of the memory; the goal is 5 % over the full count.
GROWTH = 4 * 0.05
# A picture when the server is up again: the goal is 2 s.
SERVER_BACK = 4 * 2.0


def test_start_and_stop_again_and_again(stage):
    course = endurance.cycles(stage, 12, warm=3, looks=3)
    print(course.report())
    assert not course.problems(GROWTH)


def test_server_dies_again_and_again(stage, tmp_path):
    course = endurance.restarts(stage, tmp_path, 3, down=0.5, looks=3)
    print(course.report())
    assert not course.problems(GROWTH)
    assert max(course.times["picture after the server was up"]) < SERVER_BACK, course.times
