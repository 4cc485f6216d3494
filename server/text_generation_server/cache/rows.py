"""Per-sequence device state in fixed rows, so that joining and filtering batches never moves a tensor."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from text_generation_server.device.copies import Integers, upload
from text_generation_server.errors import OutOfBlocks


class RowTable:
    """Device tensors addressed by row; their addresses never change.

    last_token: [rows] int64, the newest sampled token of each row.
    block_table: [rows, max_len] int64, the cache slot of each position of each row.
    spans: [rows] int64, positions that each row's sequence may reach.
    adapters: [rows] int64, the place of each row's adapter, 0 for none.
    """

    def __init__(self, num_rows: int, max_len: int, device: torch.device) -> None:
        self.last_token = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.block_table = torch.zeros(num_rows, max_len, dtype=torch.int64, device=device)
        self.spans = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.adapters = torch.zeros(num_rows, dtype=torch.int64, device=device)

    def admit(self, rows: Sequence[int], slots: Sequence[Integers], adapters: Sequence[int] | None = None) -> Tensor:
        """Give rows the slots of all their positions, and return the rows [N] int64 on the device.

        adapters: a place a row, None for no adapters.

        Slots beyond a request's length are never read.
        """
        lens = [len(of_row) for of_row in slots]
        table = np.zeros((len(lens), max(lens)), dtype=np.int64)
        for filled, of_row in zip(table, slots, strict=True):
            filled[: len(of_row)] = of_row
        adapted = [0] * len(rows) if adapters is None else adapters
        places, spans, flat, numbers = upload(self.block_table.device, rows, lens, table.ravel(), adapted)
        self.spans[places] = spans
        self.block_table[:, : table.shape[1]].index_copy_(0, places, flat.view(table.shape))
        self.adapters[places] = numbers
        return places


class FreeRows:
    """Which rows no sequence holds. Host only."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._free = list(range(num_rows - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """A free row.

        Raises:
            OutOfBlocks: every row is held.
        """
        if not self._free:
            raise OutOfBlocks(
                f"all {self._num_rows} rows are in use: wait for running requests, or raise MAX_BATCH_SIZE"
            )
        return self._free.pop()

    def release(self, row: int) -> None:
        """Give a row back."""
        self._free.append(row)
