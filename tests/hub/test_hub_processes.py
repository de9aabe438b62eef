"""`ernie download` as a process of its own: killed, interrupted, out of disk."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest
from forks import Forked
from hub_faults import hang
from hub_model import Run, holds, model_files
from hub_server import Hub, Repo

ERNIE = [sys.executable, "-m", "ernie_cli", "download", "baidu/tiny", "-o"]
KILLS = 20


def start(out: str, *before: str, **options: object) -> subprocess.Popen[str]:
    """The command in its own process; `before` goes in front of it."""
    return subprocess.Popen([*before, *ERNIE, out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def kill_after(process: Forked, hub: Hub, sent: int, then_s: float) -> None:
    """kill -9 once the hub has sent so many bytes of files, and a moment later."""
    while hub.sent() < sent and process.poll() is None:
        time.sleep(0.001)
    time.sleep(then_s)
    process.kill()
    process.communicate()


def test_killed_at_any_moment_nothing_partial_is_taken_for_whole_and_the_next_run_goes_on(hub: Hub, ernie: Run) -> None:
    dice, total_resumed, killed = random.Random(7), 0, 0
    hub.repos["baidu/tiny"] = Repo(model_files(rows=8192))
    files = hub.repos["baidu/tiny"].files
    total = sum(map(len, files.values()))
    for kill in range(KILLS):
        out = Path(f"out{kill}")
        hub.forget()
        hub.bytes_per_s = 4e6  # about 0.1 s for each shard, so that most kills fall in the middle
        process = forks.ernie("download", "baidu/tiny", "-o", out)
        kill_after(process, hub, int(dice.uniform(0, 0.9) * total), dice.uniform(0, 0.02))
        killed += process.returncode == -signal.SIGKILL
        assert not out.exists() or holds(out, files)
        first = hub.sent()
        hub.forget()
        hub.bytes_per_s = 0
        assert ernie("baidu/tiny", "-o", str(out))[0] == 0
        assert holds(out, files)
        assert not out.with_name(f"{out}.partial").exists()
        total_resumed += total - hub.sent() if first else 0
    assert killed >= KILLS // 2, "most processes were killed while at work"
    assert total_resumed > total, "what the killed processes had fetched was used"


def test_ctrl_c_ends_at_once_even_when_the_hub_hangs_and_keeps_what_there_is(hub: Hub, ernie: Run) -> None:
    hub.break_once("cdn:model-00002-of-00002.safetensors", hang)
    process = start("m")
    while not (len(hub.requests("/cdn/")) == 2 and Path("m.partial/model-00001-of-00002.safetensors").exists()):
        assert process.poll() is None, "it ended before it was interrupted"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)  # the hub would be waited for 30 s
    assert process.returncode == 130
    assert "interrupted" in said
    assert not Path("m").exists()
    hub.forget()
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    assert not hub.requests("/cdn/.*00001-of"), "the shard that had come was kept"


def test_two_downloads_to_one_place(hub: Hub, ernie: Run) -> None:
    hub.break_once("cdn:model-00002-of-00002.safetensors", hang)
    process = start("m")
    while not hub.requests("/cdn/"):
        time.sleep(0.01)
    code, said = ernie("baidu/tiny", "-o", "m")
    process.kill()
    process.communicate()
    assert code == 2
    assert "another ernie" in said


def test_a_file_larger_than_allowed_is_a_full_disk(hub: Hub, ernie: Run) -> None:
    """`ulimit -f`: the kernel refuses the write in the middle of a file (EFBIG), as some file systems do."""
    limit = len(hub.repos["baidu/tiny"].files["model-00001-of-00002.safetensors"]) // 2
    process = start("m", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, said = process.communicate()
    assert process.returncode == 7, said
    assert "no room for m" in said
    assert not Path("m").exists()
    hub.forget()
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    assert holds(Path("m"), hub.repos["baidu/tiny"].files)
    assert hub.sent() < sum(map(len, hub.repos["baidu/tiny"].files.values())), "and goes on from what fitted"


def _may_mount() -> bool:
    """Whether this user may mount a small disk in a namespace of its own (not on every system)."""
    try:
        return subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _may_mount(), reason="needs a small disk of its own: user namespaces with mount")
@pytest.mark.parametrize(
    ("options", "words"), [("size=200k", "to fetch"), ("size=64m,nr_inodes=6", "No space left")], ids=["no bytes", "no inodes"]
)
def test_a_disk_that_is_really_full(hub: Hub, tmp_path: Path, options: str, words: str) -> None:
    """Too few bytes is found before fetching; too few inodes only when the kernel says ENOSPC."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o {options} x "{disk}" && "$@"; code=$?; ls -A "{disk}"; exit $code'
    process = start(str(disk / "m"), "unshare", "-rm", "sh", "-c", script, "sh", env={**os.environ})
    listed, said = process.communicate()
    assert process.returncode == 7, said
    assert words in said
    assert "m" not in listed.split()
