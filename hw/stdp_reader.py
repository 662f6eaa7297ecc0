"""Reads queries, keys and values in the order in which the attention unit consumes them."""

from amaranth import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.fixed import exact, index_shape, interval_shape
from s2tdpt.hw.latency import RateToLatency
from s2tdpt.hw.memory import head_groups

__all__ = ["TokenReader", "token_layout"]


class Fetch(enum.Enum, shape=unsigned(2)):
    """What the reader asks the spike memory for next."""

    SCAN = 0  # pass 1: a query word, for the counts that occur
    KEY = 1  # pass 2: a key word
    VALUE = 2  # pass 2: the value word of the same token
    QUERY = 3  # pass 3: a query word, for the output row


def token_layout(*, tokens, heads, head_dim, lanes):
    """Struct that says which head of which token a stage works on.

    ``offset`` is the address of the word within a map, ``slot`` the place of the head in the word.
    """
    return data.StructLayout(
        {
            "offset": interval_shape(0, tokens * head_groups(heads, head_dim, lanes)),
            "token": index_shape(tokens),
            "head": index_shape(heads),
            "slot": index_shape(lanes // head_dim),
        }
    )


class TokenReader(wiring.Component):
    """For each head: all queries, then key and value of each token, then all queries again.

    The first round only notes which spike counts occur (`present`). The others deliver one token after the
    other, popcounts taken, over a valid/ready handshake; the words of the next token are asked for in the
    cycle in which a token is taken.

    Latency: a token is ready 3 cycles (2 in the last round) after the one before was taken. Throughput: one
    query word a cycle in the first round. Resources: two head slices of ``head_dim * timesteps`` flip-flops,
    the bitmaps, `timesteps` popcounts, one address adder outside.

    Parameters
    ----------
    tokens, heads, head_dim, timesteps, lanes : int
        As in `StdpAttention`.
    addr_width : int
        Address bits of the spike memory.

    Members
    -------
    start : ``In(1)``
        Begins with the first head.
    hold : ``In(1)``
        The read port is taken in this cycle.
    q_base, k_base, v_base : ``In(addr_width)``
        First words of the maps.
    rd_en : ``Out(1)``
        A word is read in this cycle.
    rd_base : ``Out(addr_width)``, rd_offset : ``Out``
        Its address is their sum.
    rd_data : ``In(lanes * timesteps)``
        The word, one cycle later.
    valid : ``Out(1)``, ready : ``In(1)``
        Handshake of a token; `ready` may depend on `valid`, not the other way round.
    where : ``Out(token_layout)``
        Whose token it is.
    emits : ``Out(1)``
        It is a query (third round), not a key and a value.
    counts : ``Out``, 0..head_dim, array of `timesteps`
        Spike counts of the key or query in each step.
    values : ``Out(head_dim * timesteps)``
        Spikes of the value; bit ``channel * timesteps + t``.
    present : ``Out(head_dim + 1)``, array of `timesteps`
        Bit ``r`` of step ``t``: some query of this head has ``r`` spikes in it.
    """

    def __init__(self, *, tokens, heads, head_dim, timesteps, lanes, addr_width):
        self._tokens = tokens
        self._heads = heads
        self._head_dim = head_dim
        self._timesteps = timesteps
        self._groups = head_groups(heads, head_dim, lanes)
        self._per_word = lanes // head_dim
        where = token_layout(tokens=tokens, heads=heads, head_dim=head_dim, lanes=lanes)
        # Registers are arrays of members, not array layouts: Yosys' ABC9 takes the names of the elements of
        # an array layout, such as `present[0]`, for bits of a register and stops.
        super().__init__(
            {
                "start": In(1),
                "hold": In(1),
                "q_base": In(addr_width),
                "k_base": In(addr_width),
                "v_base": In(addr_width),
                "rd_en": Out(1),
                "rd_base": Out(addr_width),
                "rd_offset": Out(where["offset"].shape),
                "rd_data": In(lanes * timesteps),
                "valid": Out(1),
                "ready": In(1),
                "where": Out(where),
                "emits": Out(1),
                "counts": Out(interval_shape(0, head_dim)).array(timesteps),
                "values": Out(head_dim * timesteps),
                "present": Out(head_dim + 1).array(timesteps),
            }
        )

    def elaborate(self, platform):
        m = Module()
        fetch = Signal(Fetch)
        first = Signal()
        self._read_words(m, fetch, first)
        self._take_slices(m, fetch, first)
        return m

    def _read_words(self, m, fetch, first):
        """The order of the words: `fetch` is the kind of the next one, `first` marks token 0."""
        active = Signal()
        waits = Signal()  # until the token before has been taken
        at = Signal(self.where.shape())
        group = Signal(interval_shape(0, self._groups))
        last_token = Signal()
        m.d.comb += [
            self.rd_en.eq(active & ~self.hold & (~waits | self.valid & self.ready)),
            self.rd_offset.eq(at.offset),
            first.eq(at.token == 0),
            last_token.eq(at.token == self._tokens - 1),
        ]
        with m.Switch(fetch):
            with m.Case(Fetch.KEY):
                m.d.comb += self.rd_base.eq(self.k_base)
            with m.Case(Fetch.VALUE):
                m.d.comb += self.rd_base.eq(self.v_base)
            with m.Default():
                m.d.comb += self.rd_base.eq(self.q_base)

        with m.If(self.start):
            m.d.sync += [active.eq(1), waits.eq(0), fetch.eq(Fetch.SCAN), at.eq(0), group.eq(0)]
        with m.If(self.rd_en):
            m.d.sync += self.where.eq(at)
            # Every fetch but that of a key ends the reads of a token.
            with m.If(fetch != Fetch.KEY):
                m.d.sync += [
                    at.token.eq(Mux(last_token, 0, exact(at.token + 1, at.token.shape()))),
                    at.offset.eq(Mux(last_token, group, exact(at.offset + self._groups, at.offset.shape()))),
                ]
            m.d.sync += waits.eq((fetch == Fetch.VALUE) | (fetch == Fetch.QUERY))
            with m.Switch(fetch):
                with m.Case(Fetch.SCAN):
                    m.d.sync += fetch.eq(Mux(last_token, Fetch.KEY, Fetch.SCAN))
                with m.Case(Fetch.KEY):
                    m.d.sync += fetch.eq(Fetch.VALUE)
                with m.Case(Fetch.VALUE):
                    m.d.sync += fetch.eq(Mux(last_token, Fetch.QUERY, Fetch.KEY))
                with m.Case(Fetch.QUERY):
                    with m.If(last_token):
                        m.d.sync += fetch.eq(Fetch.SCAN)
                        self._next_head(m, active, at, group)

    def _next_head(self, m, active, at, group):
        m.d.sync += at.head.eq(exact(at.head + 1, at.head.shape()))
        with m.If(at.head == self._heads - 1):
            m.d.sync += active.eq(0)
        with m.If(at.slot == self._per_word - 1):
            m.d.sync += [
                at.slot.eq(0),
                at.offset.eq(exact(group + 1, at.offset.shape())),
                group.eq(exact(group + 1, group.shape())),
            ]
        with m.Else():
            m.d.sync += at.slot.eq(exact(at.slot + 1, at.slot.shape()))

    def _take_slices(self, m, fetch, first):
        """The head's part of each word read, and what is derived from it."""
        steps, spots = self._timesteps, self._head_dim + 1
        size = self._head_dim * steps
        fetched = Signal()
        kind = Signal(Fetch)
        scanned = Signal()
        head_word = Signal(size)
        counted_word = Signal(size)  # query or key
        m.d.comb += [
            head_word.eq(
                Array(self.rd_data[slot * size : (slot + 1) * size] for slot in range(self._per_word))[
                    self.where.slot
                ]
            ),
            self.emits.eq(kind == Fetch.QUERY),
        ]
        m.d.sync += [fetched.eq(self.rd_en), scanned.eq(fetched & (kind == Fetch.SCAN))]
        with m.If(self.rd_en):
            m.d.sync += kind.eq(fetch)
        with m.If(self.valid & self.ready):
            m.d.sync += self.valid.eq(0)
        with m.If(fetched):
            with m.If(kind == Fetch.VALUE):
                m.d.sync += self.values.eq(head_word)
            with m.Else():
                m.d.sync += counted_word.eq(head_word)
            with m.If((kind == Fetch.VALUE) | (kind == Fetch.QUERY)):
                m.d.sync += self.valid.eq(1)

        for t in range(steps):
            m.submodules[f"count{t}"] = counter = RateToLatency(self._head_dim)
            m.d.comb += [counter.spikes.eq(counted_word[t::steps]), self.counts[t].eq(counter.rank)]
            with m.If(scanned):
                occurs = Cat(counter.rank == count for count in range(spots))
                m.d.sync += self.present[t].eq(self.present[t] | occurs)
        with m.If(self.rd_en & (fetch == Fetch.SCAN) & first):
            m.d.sync += [bitmap.eq(0) for bitmap in self.present]
