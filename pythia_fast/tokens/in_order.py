"""Raw token data together with the order in which training read it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pythia_fast.core import OrderedStore, TokenStore
from pythia_fast.errors import ArgumentError
from pythia_fast.tokens.sources import Origin

if TYPE_CHECKING:
    from pythia_fast.tokens.order import Order


@dataclass(frozen=True, slots=True, eq=False)
class InOrder:
    """An origin: the samples of `raw` as `order` has them."""

    raw: Origin
    order: "Order"

    def open(self) -> OrderedStore:
        """Open the data anew, and fit the order to it: OrderError if it is that of other data."""
        documents = self.raw.open()
        if not isinstance(documents, TokenStore):
            raise ArgumentError(
                f"{self.raw} cannot be read in an order: it must be raw data on this machine, and "
                "not in order already"
            )
        order = self.order
        tokens = documents.bin_bytes // np.dtype(documents.dtype).itemsize
        order.check_size(len(documents), tokens)
        files = () if order.files is None or not order.files.mmap else order.files.paths
        return OrderedStore(
            documents,
            order.doc_idx,
            order.sample_idx,
            order.shuffle_idx,
            order.sequence_length,
            files,
        )

    def __str__(self) -> str:
        return f"{self.raw}, in training order (seed {self.order.seed})"
