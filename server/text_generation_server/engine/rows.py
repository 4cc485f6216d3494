"""Per-sequence device state in fixed rows, so that joining and filtering batches never moves a tensor."""

from collections.abc import Sequence

import numpy as np
import torch

from text_generation_server.engine.plan import Admission
from text_generation_server.engine.upload import upload
from text_generation_server.errors import OutOfBlocks


class RowTable:
    """Device tensors addressed by row; their addresses never change.

    last_token: [rows] int64, the newest sampled token of each row.
    slots: [rows, max_len] int64, the cache slot of each position of each row.
    spans: [rows] int64, positions that each row's sequence may reach.
    """

    def __init__(self, num_rows: int, max_len: int, device: torch.device) -> None:
        self.last_token = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.slots = torch.zeros(num_rows, max_len, dtype=torch.int64, device=device)
        self.spans = torch.zeros(num_rows, dtype=torch.int64, device=device)

    def admit(self, admissions: Sequence[Admission]) -> None:
        """Set the slots of the rows' positions; those beyond a request's length are never read."""
        lens = [len(admission.slots) for admission in admissions]
        table = np.zeros((len(lens), max(lens)), dtype=np.int64)
        for of_row, admission in zip(table, admissions, strict=True):
            of_row[: len(admission.slots)] = admission.slots
        rows, spans, slots = upload(self.slots.device, [a.row for a in admissions], lens, table.ravel())
        self.spans[rows] = spans
        self.slots[:, : table.shape[1]].index_copy_(0, rows, slots.view(table.shape))


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
