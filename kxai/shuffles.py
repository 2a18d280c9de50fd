"""Random sequences with the same neighbours as a given one."""

from __future__ import annotations

import numpy as np


def dinucleotide_shuffle(sequence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random sequence with the same first and last symbol and the same count of every pair of neighbours.

    Each such sequence is an Euler path in the graph whose edges are the pairs. A path leaves every symbol for the last
    time by some edge, and these edges form a tree that leads to the last symbol: a random tree is drawn (by walks with
    their loops erased, so that all are equally likely), the other edges are shuffled. All sequences are equally likely.

    Args:
        sequence: integers >= 0 (length,).
        random: the random numbers.

    Example:
        >>> shuffled = dinucleotide_shuffle(np.array([0, 1, 0, 2, 0, 1]), np.random.default_rng(0))
        >>> sorted(zip(shuffled, shuffled[1:])) == sorted([(0, 1), (1, 0), (0, 2), (2, 0), (0, 1)])
        True

    Source: Altschul & Erickson 1985; Wilson 1996 for the tree; Kandel et al. 1996 for the probabilities.
    """
    if len(sequence) < 3:
        return sequence.copy()
    symbols = list(map(int, sequence))
    follow = {symbol: sequence[1:][sequence[:-1] == symbol] for symbol in dict.fromkeys(symbols[:-1])}
    last = _tree(follow, symbols[-1], random)
    queues = {}
    for symbol, following in follow.items():
        rest = list(map(int, following))
        if symbol in last:
            rest.remove(last[symbol])
        order = [rest[i] for i in random.permutation(len(rest))] + ([last[symbol]] if symbol in last else [])
        queues[symbol] = iter(order)
    path = [symbols[0]]
    for _ in symbols[1:]:
        path.append(next(queues[path[-1]]))
    return np.array(path, sequence.dtype)


def _tree(follow: dict[int, np.ndarray], root: int, random: np.random.Generator) -> dict[int, int]:
    """A random tree: for every symbol but the root, the symbol that its branch leads to next."""
    reached, leads = {root}, dict[int, int]()
    for start in follow:
        symbol = start
        while symbol not in reached:
            # Where a walk returns to a symbol it leaves it anew: that erases the loop.
            leads[symbol] = int(random.choice(follow[symbol]))
            symbol = leads[symbol]
        symbol = start
        while symbol not in reached:
            reached.add(symbol)
            symbol = leads[symbol]
    return {symbol: leads[symbol] for symbol in reached - {root}}
