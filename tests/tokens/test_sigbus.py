"""Files that shrink while they are read are errors; a SIGBUS of somebody else stays his.

Each in a Python of its own: what fails here ends the process.
"""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

ROWS, TOKENS, SHARD_BYTES = 256, 4096, 700_001


@pytest.fixture
def prefix(tmp_path, token_files):
    ids = np.random.default_rng(0).integers(0, 50_254, (ROWS, TOKENS))
    return token_files(tmp_path / "data", ids)


@pytest.fixture(params=["whole", "sharded"])
def data_files(prefix, request):
    """The prefix, and what its .bin lies in."""
    if request.param == "whole":
        return prefix, [prefix.with_suffix(".bin")]
    content = prefix.with_suffix(".bin").read_bytes()
    prefix.with_suffix(".bin").unlink()
    parts = [content[i : i + SHARD_BYTES] for i in range(0, len(content), SHARD_BYTES)]
    paths = [prefix.with_name(f"data-{i:05}-of-{len(parts) - 1:05}.bin") for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    return prefix, paths


def python(program, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


BEFORE_USE = """
import os, sys
import numpy as np
from pythia_fast.errors import TruncatedFileError
from pythia_fast.tokens import TokenDataset

prefix, victim, size, threads = sys.argv[1:]
data = TokenDataset(prefix)
shape = len(data), int(data.lengths.max())
outs = [np.empty(shape, dtype) for dtype in ("int64", "int32", "uint16")]
os.truncate(victim, int(size))
into = [lambda out=out: data.gather(slice(None), out=out, threads=int(threads)) for out in outs]
for use in (*into, lambda: data[:], lambda: data[-1], lambda: data.check_ids(60_000),
            data.fingerprint, lambda: data.gather(slice(None, None, 3), threads=int(threads))):
    try:
        use()
    except TruncatedFileError as error:
        assert (str(error.path), error.offset) == (victim, int(size)), error
        assert "when it was opened" in error.reason
    else:
        raise AssertionError("no error")
"""


@pytest.mark.parametrize("size", [0, 100, 4096, 40_000])
@pytest.mark.parametrize("threads", [1, 3])
def test_truncated_between_opening_and_reading(data_files, size, threads):
    prefix, paths = data_files
    done = python(BEFORE_USE, prefix, paths[-1], size, threads)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", [0, 33, 1000])
def test_truncated_index(prefix, size):
    done = python(BEFORE_USE, prefix, prefix.with_suffix(".idx"), size, 2)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_few_bytes_less_of_the_last_page(prefix):
    """No page is gone, and the bytes read as zeros: only the size tells."""
    bin_ = prefix.with_suffix(".bin")
    done = python(BEFORE_USE, prefix, bin_, bin_.stat().st_size - 3, 2)
    assert (done.returncode, done.stderr) == (0, "")


WHILE_READING = """
import os, shutil, sys, threading
import numpy as np
from pythia_fast.errors import TruncatedFileError
from pythia_fast.tokens import TokenDataset

prefix, victim, sizes = sys.argv[1:]
expected = TokenDataset(prefix)[:]
for size in map(int, sizes.split()):
    os.rename(victim, victim + ".whole")
    shutil.copy(victim + ".whole", victim)
    data = TokenDataset(prefix)
    reading = threading.Semaphore(0)
    failures = []

    def read(rows):
        out = np.empty_like(expected)
        try:
            for round in range(10**6):
                assert np.array_equal(data.gather(rows, out=out, threads=2), expected[rows])
                if round % 4 == 0:
                    assert (data.lengths_of(rows) == expected.shape[1]).all()
                reading.release()
        except TruncatedFileError as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(np.random.permutation(len(data)),))
               for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(2 * len(readers)):
        reading.acquire()
    os.truncate(victim, size)
    for reader in readers:
        reader.join()
    assert len(failures) == len(readers)
    assert {(str(error.path), error.offset) for error in failures} == {(victim, size)}, failures
    os.rename(victim + ".whole", victim)
"""


def test_truncated_while_threads_read(data_files):
    prefix, paths = data_files
    done = python(WHILE_READING, prefix, paths[-1], "0 5000 123 300000 1 28672 64 2000")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_index_truncated_while_threads_read(prefix):
    index = prefix.with_suffix(".idx")
    done = python(WHILE_READING, prefix, index, "0 33 1000 34 2000 1 3000 500")
    assert (done.returncode, done.stderr) == (0, "")


FOREIGN = """
import faulthandler, mmap, os, signal, sys, tempfile
from pythia_fast.errors import TruncatedFileError
from pythia_fast.tokens import TokenDataset

prefix, steps = sys.argv[1:]

def read():
    assert TokenDataset(prefix)[3].any()

def guarded_fault():
    data = TokenDataset(prefix)
    size = os.path.getsize(prefix + ".bin")
    with open(prefix + ".bin", "rb") as file:
        content = file.read()
    os.truncate(prefix + ".bin", 50)
    try:
        data.check_ids(60_000)
    except TruncatedFileError:
        print("caught", flush=True)
    with open(prefix + ".bin", "r+b") as file:
        file.write(content)

def foreign_fault():
    file = tempfile.TemporaryFile()
    file.truncate(10_000)
    mapped = mmap.mmap(file.fileno(), 10_000)
    file.truncate(0)
    print("foreign", flush=True)
    mapped[5000]

def python_handler():
    signal.signal(signal.SIGBUS, lambda number, frame: print("handled", flush=True))

def ignore():
    signal.signal(signal.SIGBUS, signal.SIG_IGN)

def sent():
    os.kill(os.getpid(), signal.SIGBUS)

enable = faulthandler.enable
disable = faulthandler.disable
for step in steps.split():
    globals()[step]()
print("end")
"""

DUMPED = "Fatal Python error: Bus error"
# Under AddressSanitizer its own handler would be the first of the others.
ALONE = os.environ | {"ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:handle_sigbus=0"}


@pytest.mark.parametrize(
    ("steps", "printed", "dumps"),
    [
        ("guarded_fault guarded_fault foreign_fault", "caught caught foreign", 0),
        ("enable read foreign_fault", "foreign", 1),
        ("read enable foreign_fault", "foreign", 1),
        ("read enable read foreign_fault", "foreign", 1),
        ("read enable guarded_fault foreign_fault", "caught foreign", 1),
        ("enable guarded_fault guarded_fault foreign_fault", "caught caught foreign", 1),
        ("read enable read disable guarded_fault foreign_fault", "caught foreign", 0),
        ("read enable read disable read enable read foreign_fault", "foreign", 1),
        ("python_handler read foreign_fault", "foreign", 0),
        ("read python_handler guarded_fault foreign_fault", "caught foreign", 0),
        ("ignore read guarded_fault foreign_fault", "caught foreign", 0),
        ("enable read sent", "", 1),
        ("read enable read sent", "", 1),
        ("read sent", "", 0),
    ],
)
def test_what_is_not_ours_goes_to_whom_it_belongs(prefix, steps, printed, dumps):
    done = python(FOREIGN, prefix, steps, env=ALONE)
    assert done.stdout.split() == printed.split()
    assert done.stderr.count(DUMPED) == dumps
    assert done.returncode == -signal.SIGBUS


def test_a_signal_that_is_sent_and_handled_or_ignored(prefix):
    done = python(FOREIGN, prefix, "python_handler read sent guarded_fault sent", env=ALONE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["handled", "caught", "handled", "end"]
    done = python(FOREIGN, prefix, "ignore read sent guarded_fault sent", env=ALONE)
    assert (done.returncode, done.stdout.split()) == (0, ["caught", "end"])


ROUNDING = """
import os, sys
import numpy as np
import torch
from pythia_fast.errors import TruncatedFileError
from pythia_fast.tokens import TokenDataset

data = TokenDataset(sys.argv[1])
small = torch.tensor([1e-39])
assert (small * 0.5).item() != 0
assert torch.set_flush_denormal(True)
os.truncate(sys.argv[1] + ".bin", 0)
assert (small * 0.5).item() == 0
try:
    data.gather([9], out=np.empty((1, 4096), np.int64), threads=1)
except TruncatedFileError:
    print("caught")
assert (small * 0.5).item() == 0, "the handler's own rounding was kept"
"""


def test_how_the_thread_rounds_is_kept(prefix):
    done = python(ROUNDING, prefix)
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught\n", "")


MAPPED_ARRAY = """
import os, sys
import numpy as np
from pythia_fast.errors import ReadError
from pythia_fast.tokens import TokenDataset

path, = sys.argv[1:]
np.save(path, np.ones((256, 4096), np.uint16))
data = TokenDataset(np.load(path, mmap_mode="r"))
os.truncate(path, 5000)
for use in (lambda: data[:], lambda: data[-1], lambda: data.gather(slice(None), threads=3),
            lambda: data.check_ids(60_000), data.fingerprint):
    try:
        use()
    except ReadError as error:
        assert "an array (the file that it maps may have shrunk)" in str(error), error
    else:
        raise AssertionError("no error")
assert (data.gather([0], columns=slice(0, 2000)) == 1).all()
"""


def test_an_array_over_a_file_that_shrinks(tmp_path):
    done = python(MAPPED_ARRAY, tmp_path / "ids.npy")
    assert (done.returncode, done.stderr) == (0, "")
