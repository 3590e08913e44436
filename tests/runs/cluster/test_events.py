"""Why a worker is gone, out of what Ray says. The texts are Ray's 2.60, with paths cut short."""

import pytest

from pythia_fast.runs.cluster.events import reason_of

CREATION = """\
The actor died because of an error raised in its creation task, \x1b[36mray::Worker.__init__()\
\x1b[39m (pid=14784, ip=192.0.2.2, actor_id=898acd44d81dd750e8b3c05f01000000, repr=<pythia_fast\
.runs.cluster.actor.FunctionActorManager._create_fake_actor_class.<locals>.TemporaryActor object \
at 0x7f93b0e6c450>)
         ~~^^^^^
KeyError: 'x'

The above exception was the direct cause of the following exception:

\x1b[36mray::Worker.__init__()\x1b[39m (pid=14784, ip=192.0.2.2, actor_id=898acd44d81dd750e8b3c05f)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/work/actor.py", line 8, in __init__
    except KeyError as e: raise RuntimeError("no AMX") from e
                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"""
ENVIRONMENT = """\
Failed to set up runtime environment.
Could not create the actor because its associated runtime env failed to be created.
[Node 192.0.2.2] Traceback (most recent call last):
  File "/ray/_private/runtime_env/protocol.py", line 230, in _handle_http_protocol
    from smart_open import open as smart_open_open
ModuleNotFoundError: No module named 'smart_open'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/ray/_private/runtime_env/agent/runtime_env_agent.py", line 561, in _create
    runtime_env_context = await asyncio.wait_for(
                          ^^^^^^^^^^^^^^^^^^^^^^^
  File "/ray/_private/runtime_env/protocol.py", line 232, in _handle_http_protocol
    raise ImportError(
ImportError: You must `pip install smart_open` to fetch HTTP/HTTPS URIs.
"""
EXIT = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tpid: 15016\n\tip: "
    "192.0.2.2\nThe actor is dead because its worker process has died. Worker exit detail: "
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CREATION + "RuntimeError: no AMX", "RuntimeError: no AMX"),
        (CREATION + "ValueError: first line\nsecond line\n", "ValueError: first line second line"),
        (CREATION + "E: " + "x" * 900, "E: " + "x" * 397),
        (ENVIRONMENT, "ImportError: You must `pip install smart_open` to fetch HTTP/HTTPS URIs."),
        (
            EXIT + "Worker exits with an exit code 3.",
            "its worker process has died. Worker exit detail: Worker exits with an exit code 3.",
        ),
        (
            EXIT + "End of file. Some common causes include: (1) the process was killed by the OOM",
            "its worker process has died. Worker exit detail: End of file.",
        ),
        (CREATION, None),
    ],
)
def test_the_reason_is_what_ray_says_last(text: str, reason: str | None) -> None:
    """Of a traceback without an end all that there is."""
    found = reason_of(Exception(text))
    assert "\x1b" not in found
    assert found == reason or (reason is None and found.startswith("The actor died because"))
