"""A worker: an actor with one resident model, which computes the steps that the driver orders."""

import os
import pickle
import platform
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING

import torch

from pythia_fast.errors import RunMismatchError, WorkerError
from pythia_fast.model import Precision, ends_context, resolve_precision
from pythia_fast.model.devices import resolve_device
from pythia_fast.runs.asked import resolve_batch_tokens
from pythia_fast.runs.cluster.messages import (
    Failed,
    Fatal,
    Finished,
    Hello,
    Message,
    Order,
    Unable,
    Unfit,
    Work,
)
from pythia_fast.runs.cluster.outbox import Outbox
from pythia_fast.runs.cluster.sent_error import sent
from pythia_fast.runs.cluster.worker_side import (
    Assigned,
    SentParts,
    Telling,
    parts_of,
)
from pythia_fast.runs.job import SweepJob
from pythia_fast.runs.pipeline import Pipeline

if TYPE_CHECKING:
    import ray

POLL_S = 5.0
"""An answer without news comes after so long, so that the driver may look up."""
BROKEN_CONTEXT = 3
"""With which code a process ends whose GPU context cannot be used any more."""


class Worker:
    """Computes what it is ordered to, one step after the other, and tells how it goes.

    Its methods are called by several threads at a time: `compute` waits until its step is over,
    `poll` until there is something to tell.
    """

    def __init__(self, threads: int, gpus: float) -> None:
        torch.set_num_threads(threads)
        self._device = resolve_device("cuda" if gpus else "cpu")
        # Of the machine's memory, or the GPU's, others take their parts at the same time.
        self._share = min(1.0, gpus if gpus else threads / (os.cpu_count() or 1))
        self._outbox = Outbox()
        self._works: dict[int, Work] = {}
        self._coming: set[tuple[int, int]] = set()  # orders of models that are being learned
        self._orders: deque[Order] = deque()  # of models that are not resident yet
        self._resident: tuple[int, Assigned, SentParts | None] | None = None
        self._unfit: set[int] = set()  # models
        self._over: dict[tuple[int, int], threading.Event] = {}
        self._changed, self._learning = threading.Condition(), threading.Lock()
        self._stopping = False
        self._writer = ThreadPoolExecutor(1, "pythia_fast-write")
        self._thread = threading.Thread(target=self._go, name="pythia_fast-work", daemon=True)

    def hello(self, version: str, asked: bytes) -> Hello | str:
        """Who this is, and what a dtype means here for each model; of another version only that.

        `asked` is the pickled dtype and architectures: nothing else is opened before the driver's
        `version` is seen to be the same, in which all that is sent has the same form.
        """
        import ray

        here = package_version("pythia-fast")
        if version != here:
            return here
        dtype, architectures = pickle.loads(asked)
        return Hello(
            node=ray.get_runtime_context().get_node_id(),
            host=platform.node(),
            precisions=tuple(
                resolve_precision(dtype, self._device, each).name for each in architectures
            ),
        )

    def compute(self, order: Order, work: "Sequence[ray.ObjectRef[bytes]]") -> None:
        """Take an order; returns when the step is over, which the messages tell too.

        `work` is one reference, in a list so that it is fetched and opened once and not each time.
        """
        key, over = (order.model, order.step), threading.Event()
        with self._changed:
            self._coming.add(key)
        try:
            learned = self._learns(order.model, work[0])
        except BaseException:
            self._coming.discard(key)
            raise
        with self._changed:
            wanted = key in self._coming  # it may have been given back meanwhile
            self._coming.discard(key)
            if not (learned and wanted) or order.model in self._unfit:
                return  # the driver has heard that it must go elsewhere
            self._over[key] = over
            if self._resident is not None and self._resident[0] == order.model:
                self._append(self._resident, order)
            else:
                self._orders.append(order)
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()
        over.wait()

    def give_back(self, model: int, step: int) -> bool:
        """Whether the step was not begun: then it will not be."""
        with self._changed:
            given = (model, step) in self._coming
            self._coming.discard((model, step))
            for order in self._orders:
                if (order.model, order.step) == (model, step):
                    self._orders.remove(order)
                    given = True
                    break
            if self._resident is not None and self._resident[0] == model:
                given = given or self._resident[1].give_back(step)
        if given:
            self._end(model, step)
        return given

    def poll(self) -> list[Message]:
        """What there is to tell, in order; waits some seconds for it."""
        messages = self._outbox.take(POLL_S)
        for message in messages:
            if isinstance(message, (Finished, Failed)):
                self._end(message.model, message.step)
        return messages

    def stop(self) -> None:
        """Begin nothing more; returns when what is being written is on the disk."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._outbox.close()
        for key in list(self._over):
            self._end(*key)
        self._writer.shutdown(wait=True)  # what is given to it after that is not written

    def _learns(self, model: int, work: "ray.ObjectRef[bytes]") -> bool:
        """Whether the work of a model is known here; it may need files that are not."""
        with self._learning:
            if model not in self._works and model not in self._unfit:
                import ray

                packed = ray.get(work)  # where that fails it is no fault of the model
                try:
                    self._works[model] = pickle.loads(packed)
                except RunMismatchError:
                    raise
                except Exception as error:
                    self._refuse(model, error)
                except SystemExit as error:  # of a module of the user's
                    self._refuse(model, WorkerError(f"a module that it needs ended: {error!r}"))
            return model in self._works

    def _end(self, model: int, step: int) -> None:
        over = self._over.pop((model, step), None)
        if over is not None:
            over.set()

    def _go(self) -> None:
        """Model after model, until told to stop."""
        try:
            while (work := self._next_work()) is not None:
                self._model(work)
        except RunMismatchError as error:
            error.add_note(f"on {platform.node()}")
            self._outbox.put(Fatal(sent(error)))
        except BaseException as error:  # also what is no Exception: a metric may call sys.exit
            if ends_context(error):
                os._exit(BROKEN_CONTEXT)  # the driver hears of it, and has the step done elsewhere
            self._outbox.put(Unable(sent(error)))

    def _next_work(self) -> Work | None:
        """The model of the next order; None when told to stop."""
        with self._changed:
            self._resident = None
            self._changed.wait_for(lambda: self._orders or self._stopping)
            return None if self._stopping else self._works[self._orders[0].model]

    def _model(self, work: Work) -> None:
        """Compute orders of one model until there are none of it but of another, or of none."""
        try:
            pipeline, resident = self._prepared(work)
        except RunMismatchError:
            raise
        except Exception as error:
            if ends_context(error):
                raise
            self._refuse(work.model, error)
            return
        with closing(pipeline):
            while self._has_orders(resident):
                pipeline.run(lambda: None)

    def _refuse(self, model: int, error: Exception) -> None:
        """Leave the orders of a model to others, also those that are still to come."""
        self._outbox.put(Unfit(model, sent(error)))
        with self._changed:
            self._unfit.add(model)
            orders = [order for order in self._orders if order.model == model]
            for order in orders:
                self._orders.remove(order)
        for order in orders:
            self._end(order.model, order.step)

    def _prepared(self, work: Work) -> "tuple[Pipeline, tuple[int, Assigned, SentParts | None]]":
        """What computes the steps of a model, and who takes orders of it."""
        _check_data(work)
        precision = _precision_of(work, self._device)
        parts = parts_of(work, self._outbox)
        assigned = Assigned(work.model, self._outbox)
        telling = Telling(work.model, self._outbox)
        pipeline = Pipeline(
            *(work.series, work.plan, parts, SweepJob(work.plan, parts, telling)),
            *(assigned, telling, self._writer),
            steps=2,
            device=self._device,
            precision=precision,
            batch_tokens=resolve_batch_tokens(work.batch_tokens, work.plan, precision),
            memory_share=self._share,
        )
        return pipeline, (work.model, assigned, parts if isinstance(parts, SentParts) else None)

    def _has_orders(self, resident: "tuple[int, Assigned, SentParts | None]") -> bool:
        """Whether there is anything to do for this model; waits while there is nothing at all."""
        with self._changed:
            self._resident = resident
            while True:
                self._take_orders(resident)
                if self._stopping:
                    return False
                if resident[1].queue:
                    return True
                if self._orders:
                    self._resident = None  # what comes for it from here on waits with the others
                    return False
                self._changed.wait()

    def _take_orders(self, resident: "tuple[int, Assigned, SentParts | None]") -> None:
        for order in [each for each in self._orders if each.model == resident[0]]:
            self._orders.remove(order)
            self._append(resident, order)

    def _append(self, resident: "tuple[int, Assigned, SentParts | None]", order: Order) -> None:
        _, assigned, sent = resident
        if sent is not None:
            sent.know(order.done)
        assigned.order(order)


def _precision_of(work: Work, device: torch.device) -> Precision:
    return resolve_precision(work.plan.dtype, device, work.plan.spec.architecture)


def _check_data(work: Work) -> None:
    """RunMismatchError if this machine's files of the data are not those of the driver."""
    if work.sample is None:
        return
    rows, fingerprint = work.sample
    if work.plan.dataset.fingerprint(rows) != fingerprint:
        raise RunMismatchError(
            f"the tokens of {work.plan.dataset.source} are others on {platform.node()} than where "
            "the sweep was begun: let all machines see the same files"
        )
