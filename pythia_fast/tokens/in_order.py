"""Raw token data together with the order in which training read it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_fast.core import OrderedStore, TokenStore
from pythia_fast.errors import ArgumentError
from pythia_fast.tokens.sources import Origin

if TYPE_CHECKING:
    from pythia_fast.tokens.order import Order

ITEM_BYTES = {"uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4}


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
        item_bytes = ITEM_BYTES.get(documents.dtype, 8)
        order.check_size(len(documents), documents.bin_bytes // item_bytes)
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
