"""How long the attention unit takes and what it keeps, as plain arithmetic on spikes and sizes."""

import numpy as np

__all__ = ["attention_cycles", "attention_macs", "row_memory_bits", "row_updates", "y_interval"]


def y_interval(lut, tokens):
    """Ends of ``Y = sum_j LUT[..] V_j`` and of every partial sum, for any spikes of `tokens` tokens."""
    return tokens * min(0, min(lut)), tokens * max(0, max(lut))


def row_memory_bits(*, head_dim, timesteps, y_bits):
    """Bits of the row memory: a row of ``head_dim`` sums for every query count and time step, and a zero.

    The number of tokens enters only through `y_bits`, the width of a sum: ``log2(tokens)``.
    """
    return (timesteps * (head_dim + 1) + 1) * head_dim * y_bits


def attention_macs(*, tokens, heads, head_dim, timesteps):
    """Multiply-accumulates that the N x N form ``(Q K^T) V`` would need, for comparison."""
    return 2 * timesteps * heads * head_dim * tokens * tokens


def _heads(spikes, heads):
    """``[T, N, D]`` to ``[heads, N, T, d_h]`` booleans."""
    steps, tokens, width = spikes.shape
    return np.asarray(spikes).astype(bool).reshape(steps, tokens, heads, width // heads).transpose(2, 1, 0, 3)


def row_updates(q, k, v, *, heads):
    """Row updates of every token in every head: what pass 2 spends.

    A token adds to the row of each query count that occurs in a step, in every step in which it has a value
    spike; token 0 defines the rows and so touches all of them.

    Parameters
    ----------
    q, k, v : array of {0, 1}, ``[T, N, D]``
    heads : int
        Divides D.

    Returns
    -------
    array of int64, ``[heads, N]``
    """
    counts = _heads(q, heads).sum(-1)  # [heads, N, T]
    active = _heads(v, heads).any(-1)
    active[:, 0] = True
    head_dim = q.shape[2] // heads
    present = (counts[..., None] == np.arange(head_dim + 1)).any(1).sum(-1)  # [heads, T]
    return (active * present[:, None]).sum(-1)


def attention_cycles(q, k, v, *, heads, lanes):
    """Cycles of `StdpAttention` from the cycle of `start` to the cycle of `done`, exact.

    A head costs about ``N`` cycles to see the queries, ``max(3, row updates)`` for every key and
    ``max(2, T)`` for every output.

    Parameters
    ----------
    q, k, v : array of {0, 1}, ``[T, N, D]``
        Queries, keys and values of one attention layer.
    heads : int
        Divides D.
    lanes : int
        Channels in a word of the spike memory, at least the head dimension.

    Returns
    -------
    int
    """
    steps, tokens, width = q.shape
    head_dim = width // heads
    per_word = lanes // head_dim
    counts = _heads(q, heads).sum(-1)
    active = _heads(v, heads).any(-1)
    active[:, 0] = True
    work = row_updates(q, k, v, heads=heads)
    first_step = active.argmax(-1)  # [heads, N], where there is work
    last_step = steps - 1 - active[..., ::-1].argmax(-1)
    lowest, highest = counts.min(1), counts.max(1)  # [heads, T]

    issue = 1  # cycle in which the first query word is asked for
    free = 0  # first cycle in which the row pipeline can load a token
    for head in range(heads):
        # The previous head's last word is merged into its destination: one read slot.
        merge = int(head > 0 and (head - 1) % per_word != 0)
        load = max(issue + merge + tokens + 3, free)
        previous = None  # (step, query count) of the row written in the cycle before
        for token in range(tokens):
            busy = int(work[head, token])
            if busy:
                t = first_step[head, token]
                busy += previous == (t, lowest[head, t])
            # The words of the next token: a key and a value, or the first query of pass 3.
            period = max(3 if token < tokens - 1 else 2, busy)
            t = last_step[head, token]
            previous = (t, highest[head, t]) if busy == period else None
            load += period
        busy = steps + (previous == (0, counts[head, 0, 0]))
        for _ in range(tokens - 1):
            load += max(2, busy)
            busy = steps
        issue, free = load, load + busy
    return int(free) + 4
