"""What a worker has to tell, in order, until the driver asks for it."""

import threading

from pythia_fast.runs.cluster.messages import Advanced, Message


class Outbox:
    """A queue of messages. Progress of the same step is added up while it waits."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._changed = threading.Condition()
        self._closed = False

    def put(self, message: Message) -> None:
        """Tell the driver, when it asks next."""
        with self._changed:
            last = self._messages[-1] if self._messages else None
            if isinstance(message, Advanced) and isinstance(last, Advanced):
                same = (message.model, message.step, message.skipped)
                if same == (last.model, last.step, last.skipped):
                    tokens = last.tokens + message.tokens
                    self._messages[-1] = Advanced(*same[:2], tokens, message.skipped)
                    return
            self._messages.append(message)
            self._changed.notify_all()

    def take(self, patience_s: float) -> list[Message]:
        """All there is to tell; nothing if nothing comes for so long, or it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed, patience_s)
            messages, self._messages = self._messages, []
        return messages

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
